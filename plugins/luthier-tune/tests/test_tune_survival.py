"""What a run survives: kills, overfitting, divergence, too little memory, a full disk."""

from __future__ import annotations

import logging
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import dropout, mse_loss

from luthier import InputError, LuthierError
from luthier.testing import make_context
from luthier_tune import memory
from luthier_tune.checkpoint import NAME, explained_full_disk
from luthier_tune.options import ParallelTraining, Training
from luthier_tune.training import Trainer

SETTINGS = Training(
    learning_rate=0.1, warmup_steps=2, batch_size=4, max_steps=60, evaluate_every=2, checkpoint_minutes=0.0
)


WIDTH = 8


def points(count, seed, noise):
    """Points on a line that does not depend on the seed, with noise in their height."""
    rng = random.Random(seed)
    given = [[rng.gauss(0, 1) for _ in range(WIDTH)] for _ in range(count)]
    return [(x, sum(x) / 2 + rng.gauss(0, noise)) for x in given]


class Regression:
    """An objective that is learnt by heart in time: the squared error of a line through noisy points.

    `on_loss` is called before each batch.
    """

    device = torch.device("cpu")

    def __init__(self, on_loss=lambda: None, drop=0.1):
        self.module = torch.nn.Linear(WIDTH, 1)
        self.on_loss = on_loss
        self.drop = drop
        torch.nn.init.zeros_(self.module.weight)
        torch.nn.init.zeros_(self.module.bias)

    def terms(self, example):
        return 1

    def tokens(self, example):
        return 1

    def batches(self, examples):
        yield list(range(len(examples))), list(examples)

    def loss(self, batch):
        self.on_loss()
        given = dropout(torch.tensor([x for x, _ in batch]), self.drop, self.module.training)
        return mse_loss(self.module(given)[:, 0], torch.tensor([y for _, y in batch]), reduction="sum")

    def losses(self, batch):
        with torch.no_grad():
            got = self.module(torch.tensor([x for x, _ in batch]))[:, 0]
        return list(((got - torch.tensor([y for _, y in batch])) ** 2)[:, None])


def make_trainer(ctx, settings, objective=None):
    """A trainer on few, noisy points and many clean ones to measure the loss on."""
    objective = objective or Regression()
    parameters = dict(objective.module.named_parameters())
    return Trainer(objective, parameters, points(12, 1, 1.5), points(40, 2, 0.0), settings=settings, ctx=ctx)


class Killed(BaseException):
    pass


def trained(directory, settings=SETTINGS, objective=None):
    """Train into `directory`, or go on there."""
    trainer = make_trainer(make_context(directory, seed=3), settings, objective)
    trainer.run()
    return trainer


def killed_at(directory, step, settings=SETTINGS):
    ctx = make_context(directory, seed=3)

    def emit(event):
        if event["type"] == "progress" and event["done"] == step:
            raise Killed

    ctx._emit = emit
    with pytest.raises(Killed):
        make_trainer(ctx, settings).run()
    return ctx


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.parameters.values()]).tolist()


def without_times(trainer):
    progress = trainer.progress
    records = [*progress.curve, *progress.validation]
    return [{name: value for name, value in each.items() if name != "seconds"} for each in records]


# --- the best weights, and patience -------------------------------------------------------------------


def test_the_weights_of_the_lowest_validation_loss_are_the_result(tmp_path):
    best = trained(tmp_path / "best")
    losses = {record["step"]: record["loss"] for record in best.progress.validation}
    step = min(losses, key=losses.get)
    assert 0 < step < 60, "the points were not learnt by heart: the test is too easy"
    assert best.course.last.mean == losses[step] < losses[60]
    # The weights of that step: what the checkpoint of a run that was killed then has.
    ctx = killed_at(tmp_path / "killed", step + 1, replace(SETTINGS, keep="last"))
    kept = load_file(ctx.checkpoint / NAME)
    assert weights(best) == torch.cat([kept[f"parameter.{name}"].flatten() for name in best.parameters]).tolist()
    last = trained(tmp_path / "last", replace(SETTINGS, keep="last"))
    assert last.course.last.mean == losses[60]
    assert without_times(last) == without_times(best)


def test_patience_ends_the_training_and_can_be_repeated(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    stopped = trained(tmp_path / "a", replace(SETTINGS, patience=4))
    best = stopped.progress.best["step"]
    assert stopped.progress.step == best + 8
    assert stopped.progress.total == 60
    assert f"stopped at step {best + 8}: the last 4 validation losses are no better" in caplog.text
    assert weights(stopped) == weights(trained(tmp_path / "b", replace(SETTINGS, patience=4)))


def test_patience_within_a_budget_in_minutes_is_repeated_by_the_planned_steps(tmp_path, monkeypatch):
    settings = replace(SETTINGS, max_steps=None, max_minutes=60.0, patience=3)
    stopped = trained(tmp_path / "minutes", settings)
    assert stopped.progress.step < stopped.progress.total
    again = trained(tmp_path / "steps", replace(settings, max_minutes=None, max_steps=stopped.progress.total))
    assert weights(again) == weights(stopped)
    assert without_times(again) == without_times(stopped)


@pytest.mark.parametrize(
    ("step", "checkpoint_minutes", "patience"),
    [(1, 0.0, None), (9, 0.0, None), (5, 0.004, None), (6, 0.004, None), (13, 0.004, None), (10, 0.004, 4)],
)
def test_a_killed_run_goes_on_to_the_same_best_weights(tmp_path, monkeypatch, step, checkpoint_minutes, patience):
    # A checkpoint now and then only: the best weights on disk may be older or newer than it.
    now = iter(range(1_000_000))
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: next(now) / 100)
    settings = replace(SETTINGS, max_steps=24, patience=patience, checkpoint_minutes=checkpoint_minutes)
    whole = trained(tmp_path / "whole", settings)
    ctx = killed_at(tmp_path / "killed", step, settings)
    assert len(list(ctx.checkpoint.glob("best-*"))) <= 2
    resumed = trained(tmp_path / "killed", settings)
    assert weights(resumed) == weights(whole)
    assert resumed.course.last == whole.course.last
    assert without_times(resumed) == without_times(whole)


def test_patience_without_anything_to_measure_is_refused_before_the_work(tmp_path):
    objective, ctx = Regression(), make_context(tmp_path)
    parameters = dict(objective.module.named_parameters())
    with pytest.raises(InputError, match=r"`patience` waits .* there are no examples") as refused:
        Trainer(objective, parameters, points(12, 1, 1.5), [], settings=replace(SETTINGS, patience=2), ctx=ctx)
    assert "split `valid`" in refused.value.remedy


def test_training_that_makes_it_worse_is_warned_of(tmp_path, caplog):
    trained(tmp_path / "fine")
    assert "worse" not in caplog.text
    trained(tmp_path / "bad", replace(SETTINGS, learning_rate=3.0, max_steps=4, warmup_steps=0))
    assert "training made the validation loss worse" in caplog.text


@pytest.mark.parametrize(("learning_rate", "warned"), [(1e-5, False), (1e-2, True)])
def test_a_validation_loss_that_is_worse_by_next_to_nothing_is_not_warned_of(tmp_path, caplog, learning_rate, warned):
    objective, origin = Regression(drop=0.0), [0.0] * WIDTH
    Trainer(
        objective,
        dict(objective.module.named_parameters()),
        [(origin, -1.0)] * 12,
        [(origin, 1.0)] * 4,
        settings=replace(SETTINGS, learning_rate=learning_rate, max_steps=4, warmup_steps=0),
        ctx=make_context(tmp_path),
    ).run()
    assert ("worse" in caplog.text) is warned


# --- minutes ------------------------------------------------------------------------------------------


class Clock:
    """A clock that only work moves on: the seconds of each batch, by its number."""

    def __init__(self, seconds):
        self.now, self.seconds, self.batches = 0.0, seconds, 0

    def work(self):
        self.now += self.seconds(self.batches)
        self.batches += 1


@pytest.mark.parametrize(
    "seconds",
    [
        lambda batch: 1.0,
        lambda batch: 10.0 if batch < 4 else 0.3,  # slow to get going
        lambda batch: 0.5 if batch < 100 else 2.0,  # a machine that gets busy
        lambda batch: 2.0 if batch < 60 else 0.5,
        lambda batch: 1.0 + 0.5 * (batch % 7),
    ],
    ids=["even", "slow start", "slower", "faster", "uneven"],
)
def test_minutes_are_honoured_and_repeated_by_the_number_of_steps(tmp_path, monkeypatch, seconds):
    clock = Clock(seconds)
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: clock.now)
    settings = replace(SETTINGS, max_steps=None, max_minutes=5.0, keep="last", checkpoint_minutes=1.0)
    trainer = trained(tmp_path / "minutes", settings, Regression(clock.work))
    assert 0.9 * 300 <= clock.now <= 1.1 * 300
    steps = trainer.progress.step
    assert steps == trainer.progress.total
    again = trained(tmp_path / "steps", replace(settings, max_minutes=None, max_steps=steps))
    assert weights(again) == weights(trainer)


def test_minutes_that_are_over_at_once_still_train(tmp_path, monkeypatch):
    clock = Clock(lambda batch: 100.0)
    monkeypatch.setattr("luthier_tune.training.time.monotonic", lambda: clock.now)
    settings = replace(SETTINGS, max_steps=None, max_minutes=1.0)
    assert trained(tmp_path, settings, Regression(clock.work)).progress.step == 2


# --- divergence ---------------------------------------------------------------------------------------


class Exploding(Regression):
    """A loss that grows from a step on."""

    def __init__(self, step, factor):
        super().__init__()
        self.step, self.factor, self.done = step, factor, 0

    def loss(self, batch):
        self.done += 1
        # The two batches that the memory is estimated with come first.
        return super().loss(batch) * (self.factor if self.done - 2 > self.step else 1.0)


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (float("nan"), "at step 21: the loss is nan"),
        (float("inf"), "at step 21: the loss is inf"),
        (200.0, "the mean loss of the last 20 steps is"),
    ],
)
def test_divergence_is_refused_and_the_best_weights_stay(tmp_path, factor, told):
    with pytest.raises(InputError, match=told) as refused:
        trained(tmp_path, objective=Exploding(20, factor))
    assert "Lower the learning rate (it is 0.1)" in refused.value.remedy
    (best,) = (tmp_path / "checkpoint").glob("best-*")
    assert str(best) in refused.value.remedy
    assert all(torch.isfinite(tensor).all() for tensor in load_file(best).values())
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "checkpoint" / NAME).values())


def test_single_hard_batches_are_no_divergence(tmp_path):
    class Hard(Exploding):
        def loss(self, batch):
            hard = self.done % 15 == 0
            return super().loss(batch) * (20.0 if hard else 1.0)

    assert trained(tmp_path, objective=Hard(1000, 1.0)).progress.step == 60


def test_processes_that_nobody_started_are_refused(tmp_path):
    with pytest.raises(InputError, match="`processes` is 2, and 1 are there"):
        trained(tmp_path, ParallelTraining(**vars(SETTINGS), processes=2))


# --- memory -------------------------------------------------------------------------------------------


def run_out_on_cuda():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("allocate", [lambda: torch.empty(1 << 50), run_out_on_cuda])
def test_running_out_of_memory_names_what_to_lower(tmp_path, allocate):
    done = []

    def on_loss():
        done.append(1)
        if len(done) > 5:
            allocate()

    with pytest.raises(LuthierError, match="out of memory at step 4, of 4 examples with 4 tokens") as refused:
        trained(tmp_path, objective=Regression(on_loss))
    assert "`batch_size` (it is 4) or `max_length` (it is 512)" in refused.value.remedy


def test_other_errors_of_the_runtime_stay_what_they_are(tmp_path):
    def on_loss():
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trained(tmp_path, objective=Regression(on_loss))


def test_too_little_memory_is_refused_before_the_work(tmp_path, monkeypatch, caplog):
    need = memory.Estimate(gradients=10, moments=20, activations=70, tokens=100)
    monkeypatch.setattr("luthier_tune.course.estimate", lambda *_: need)
    monkeypatch.setattr("luthier_tune.course.available_bytes", lambda _: 110)
    assert trained(tmp_path / "tight", replace(SETTINGS, max_steps=1)).progress.step == 1
    assert "it may run out" in caplog.text
    monkeypatch.setattr("luthier_tune.course.available_bytes", lambda _: 99)
    with pytest.raises(LuthierError, match=r"for the activations of 100 tokens\), and 0.00 GB are free"):
        trained(tmp_path / "refused")
    assert list((tmp_path / "refused" / "checkpoint").iterdir()) == []


@pytest.mark.parametrize("shared", [0, 30])
def test_the_estimate_is_what_the_largest_batch_keeps(tiny, shared):
    from luthier_models.loading import load_causal_lm
    from luthier_models.packing import PackedModel
    from luthier_tune.loss import CompletionLoss

    model = load_causal_lm(tiny.path)
    objective = CompletionLoss(PackedModel(model))
    examples = [([1] * shared + [5 + i % 7] * (3 + i), [9] * 4) for i in range(30)]
    need = memory.estimate(objective, dict(model.named_parameters()), examples, batch_size=4)
    ((_, largest),) = objective.batches(examples[-4:])
    assert need.activations == pytest.approx(memory.saved_bytes(objective, largest), rel=0.1)
    assert need.tokens == sum(map(objective.tokens, examples[-4:]))
    assert need.gradients == sum(parameter.nbytes for parameter in model.parameters())


# --- disk ---------------------------------------------------------------------------------------------


def test_a_disk_that_gets_full_is_one_error_and_the_last_checkpoint_stays(tmp_path):
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_loss():
        if (tmp_path / "checkpoint" / NAME).exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        with pytest.raises(LuthierError, match="no space left for a checkpoint of 0 MB") as refused:
            trained(tmp_path, objective=Regression(on_loss))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert "training goes on from the last checkpoint" in refused.value.remedy
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == [NAME]
    whole = trained(tmp_path / "whole")
    assert weights(trained(tmp_path)) == weights(whole)


def test_a_disk_that_is_full_for_pytorchs_own_files_is_the_same_error(tmp_path):
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with (
            pytest.raises(LuthierError, match=f"no space left for a checkpoint .{tmp_path}"),
            explained_full_disk("a checkpoint", tmp_path),
        ):
            torch.save(torch.zeros(10_000), tmp_path / "optimizer.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    with pytest.raises(RuntimeError, match="something else"), explained_full_disk("a checkpoint", tmp_path):
        raise RuntimeError("something else")


def test_a_disk_without_place_for_a_checkpoint_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("luthier_tune.checkpoint.shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(LuthierError, match="a checkpoint takes 0 MB, and the disk of"):
        trained(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 0.05}, r"learning_rate 0.1 \(now 0.05\)"),
        ({"max_steps": 30, "batch_size": 2}, r"batch_size 4 \(now 2\), max_steps 60 \(now 30\)"),
        ({"checkpoint_minutes": 9.0}, ""),
    ],
)
def test_a_checkpoint_of_another_configuration_is_named_and_not_used(tmp_path, caplog, change, told):
    killed_at(tmp_path / "a", 8)
    settings = replace(SETTINGS, **change)
    trainer = trained(tmp_path / "a", settings)
    assert ("is not used, and training begins anew: it was made with" in caplog.text) == bool(told)
    assert re.search(told, caplog.text)
    assert weights(trainer) == weights(trained(tmp_path / "b", settings))
