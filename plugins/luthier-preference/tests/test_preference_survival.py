"""What a training on preferences survives: overfitting, too little time, too little memory, a full disk."""

from __future__ import annotations

from types import SimpleNamespace

import polars as pl
import pytest
import torch

from luthier import Dataset, InputError, LuthierError
from luthier.testing import arguments
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_preference.examples import encode_split, rows_of_judgements, rows_of_pairs
from luthier_preference.rewards import RewardMeter
from luthier_preference.trainers import JudgementTrainer, PairTrainer, TrainerLoss, make_trainer
from luthier_tune import memory
from luthier_tune.adapters import AdapterSettings, lora_config

from .conftest import pair_rows, write_dataset
from .test_preference_tuning import COMPONENTS, identity, luthier_table, tuned, values


@pytest.fixture
def datasets(pairs, judgements) -> dict[str, Dataset]:
    return {"dpo": pairs, "kto": judgements}


@pytest.fixture
def contradicted(tmp_path) -> Dataset:
    """Pairs whose validation examples want the opposite: the more is learnt, the worse it gets."""
    frame = pair_rows()
    valid = pl.col("split") == "valid"
    swapped = frame.with_columns(
        chosen=pl.when(valid).then("rejected").otherwise("chosen"),
        rejected=pl.when(valid).then("chosen").otherwise("rejected"),
    )
    return write_dataset(tmp_path / "contradicted", swapped, "preference")


OPTIONS = {"max_steps": 8, "evaluate_every": 2}


def test_the_best_weights_are_the_result(tmp_path, tiny, contradicted, caplog):
    best = tuned(tmp_path / "best", "dpo", tiny, contradicted, **OPTIONS)
    measured = luthier_table(best, "validation-losses")
    losses = dict(measured.select("step", "loss").iter_rows())
    assert list(losses) == [0, 2, 4, 6, 8]
    assert losses[2] == min(loss for step, loss in losses.items() if step)
    assert values(best)["kept_step"] == 2
    assert values(best)["valid_loss"] == losses[2]
    assert "training made the validation loss worse" in caplog.text
    # The weights of step 2, not of the last one.
    rates = luthier_table(best, "learning-curve")["learning_rate"]
    assert rates[0] > 0
    last = tuned(tmp_path / "last", "dpo", tiny, contradicted, keep="last", **OPTIONS)
    assert (values(last)["kept_step"], values(last)["valid_loss"]) == (8, losses[8])
    assert identity(last) != identity(best)
    assert (
        luthier_table(last, "learning-curve")
        .drop("seconds")
        .equals(luthier_table(best, "learning-curve").drop("seconds"))
    )


def test_patience_ends_the_training_and_a_killed_one_goes_on_to_the_same_weights(
    tmp_path, tiny, contradicted, monkeypatch
):
    options = {"max_steps": 20, "evaluate_every": 2, "patience": 2}
    whole = tuned(tmp_path / "whole", "dpo", tiny, contradicted, **options)
    assert (values(whole)["kept_step"], values(whole)["steps"], values(whole)["planned_steps"]) == (2, 6, 20)
    step = PairTrainer.training_step

    def kill(self, *arguments):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(PairTrainer, "training_step", kill)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "again", "dpo", tiny, contradicted, checkpoint_minutes=0.0, **options)
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "again" / "checkpoint").iterdir()} == {
        "checkpoint-5",
        "best-2.safetensors",
    }
    again = tuned(tmp_path / "again", "dpo", tiny, contradicted, **options)
    assert again.events[0]["done"] == 6
    assert identity(again) == identity(whole)
    assert values(again) == values(whole)


class Clock:
    """A clock that only work moves on."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        for kind in (PairTrainer, JudgementTrainer):
            self.slow_down(monkeypatch, kind, "training_step", 1.0)
        self.slow_down(monkeypatch, RewardMeter, "_log_probabilities", 2.5)

    def slow_down(self, monkeypatch, kind, name, seconds):
        work = getattr(kind, name)

        def slow(*arguments):
            self.now += seconds
            return work(*arguments)

        monkeypatch.setattr(kind, name, slow)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_minutes_are_honoured_and_repeated_by_the_number_of_steps(tmp_path, tiny, datasets, monkeypatch, name):
    clock = Clock(monkeypatch)
    timed = tuned(tmp_path / "timed", name, tiny, datasets[name], max_minutes=0.6)
    assert 0.9 * 36 <= clock.now <= 1.1 * 36
    steps = int(values(timed)["steps"])
    assert 10 < steps < 36
    again = tuned(tmp_path / "again", name, tiny, datasets[name], max_steps=steps)
    assert identity(again) == identity(timed)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_a_disk_that_gets_full_is_one_error_and_the_last_checkpoint_stays(tmp_path, tiny, datasets, monkeypatch, name):
    resource = pytest.importorskip("resource")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kind = type(trainer_of(name, tiny, datasets[name], tmp_path / "other"))
    step = kind.training_step

    def fill(self, *arguments):
        if self.state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        return step(self, *arguments)

    options = {"max_steps": 4, "valid_examples": 0, "checkpoint_minutes": 0.0}
    monkeypatch.setattr(kind, "training_step", fill)
    try:
        with pytest.raises(LuthierError, match="no space left for a checkpoint") as refused:
            tuned(tmp_path / "full", name, tiny, datasets[name], **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    monkeypatch.undo()
    assert "training goes on from the last checkpoint" in refused.value.remedy
    assert [path.name for path in (tmp_path / "full" / "checkpoint").iterdir()] == ["checkpoint-2"]
    again = tuned(tmp_path / "full", name, tiny, datasets[name], **options)
    assert again.events[-1]["done"] == 4
    assert identity(again) == identity(tuned(tmp_path / "whole", name, tiny, datasets[name], **options))


def trainer_of(name, model, data, directory):
    from luthier.testing import make_context

    encoder = PromptEncoder.from_directory(model.path)
    examples = encode_split(data, "train", encoder, 512).examples
    base = load_causal_lm(model.path)
    settings = arguments(COMPONENTS[name])["training"]
    rows = rows_of_pairs(examples) if name == "dpo" else rows_of_judgements(examples, settings.batch_size, 3)
    ctx = make_context(directory, seed=3)
    config = lora_config(base, AdapterSettings(rank=4))
    return make_trainer(rows, base, encoder.tokenizer, ctx, peft_config=config, settings=settings)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_the_estimate_of_memory_is_what_a_batch_keeps(tmp_path, tiny, datasets, name):
    trainer = trainer_of(name, tiny, datasets[name], tmp_path)
    rows, loss = list(trainer.train_dataset), TrainerLoss(trainer)
    parameters = {name: each for name, each in trainer.model.named_parameters() if each.requires_grad}
    need = memory.estimate(loss, parameters, rows, 4)
    ((_, batch),) = loss.batches(sorted(rows, key=loss.tokens)[-4:])
    # A lower bound, as it does not know of the padding.
    assert 0.75 <= need.activations / memory.saved_bytes(loss, batch) <= 1.01
    assert need.gradients == sum(parameter.nbytes for parameter in parameters.values())


def test_too_little_memory_or_disk_is_refused_before_the_work(tmp_path, tiny, pairs, monkeypatch):
    monkeypatch.setattr("luthier_tune.course.available_bytes", lambda _: 1000)
    with pytest.raises(LuthierError, match=r"of memory besides the weights .*, and 0.00 GB are free") as refused:
        tuned(tmp_path / "memory", "dpo", tiny, pairs, max_steps=2)
    assert "`batch_size` (it is 4)" in refused.value.remedy
    monkeypatch.setattr("luthier_tune.checkpoint.shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(LuthierError, match="a checkpoint takes 0 MB, and the disk of"):
        tuned(tmp_path / "disk", "dpo", tiny, pairs, max_steps=2)


@pytest.mark.parametrize("liked", [True, False])
def test_validation_examples_of_one_kind_are_told_before_the_work(tmp_path, tiny, judgements, caplog, liked):
    frame = judgements.frame()
    label = pl.when(pl.col("split") == "valid").then(pl.lit(liked)).otherwise("label").alias("label")
    data = write_dataset(tmp_path / "data", frame.with_columns(label), "unpaired-preference")
    ctx = tuned(tmp_path / "run", "kto", tiny, data, max_steps=1)
    assert f"all validation examples are {'liked' if liked else 'disliked'}: there is nothing to tell" in caplog.text
    assert "reward_accuracy" not in values(ctx)
    with pytest.raises(InputError, match="`patience` waits for a better validation loss, and there are no examples"):
        tuned(tmp_path / "waiting", "kto", tiny, data, max_steps=1, patience=2)


def test_an_example_is_never_longer_than_the_context(tmp_path, tiny, pairs, caplog):
    tuned(tmp_path, "dpo", tiny, pairs, max_steps=1, max_length=4096, valid_examples=0)
    assert "max_length is 4096, and the model has positions for 512 tokens only" in caplog.text


def test_a_device_that_is_not_there_is_told_before_the_work(tmp_path, tiny, pairs):
    from luthier.testing import make_context

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InputError, match="'cuda' was asked for, but PyTorch finds no CUDA device"):
        COMPONENTS["dpo"](tiny, pairs, make_context(tmp_path, device="cuda"), **arguments(COMPONENTS["dpo"]))
