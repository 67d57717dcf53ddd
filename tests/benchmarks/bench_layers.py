"""Adapters in all layers, and in the top ones on kept activations: what each learns in the same CPU time.

All learn to sum up docstrings, from the same start, on the same examples in the same order, in turns within one
process, so that whatever else the machine does falls on each of them alike. Each has the same CPU time, of all
threads of the process; within it its learning rate falls linearly to zero. The time in which frozen layers are
computed for the first time is in it; loading and validation are not.

Run: python tests/benchmarks/bench_layers.py [--model DIRECTORY] [--seconds 240] [--examples 160]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench_tuning import MODEL  # first: it sets what the libraries read of the environment
from tuning_examples import SEED, docstring_pairs

from luthier import Model
from luthier.locations import fetch
from luthier.testing import make_context
from luthier_models.normalise import write_pretrained
from luthier_models.packing import Pair
from luthier_models.prompts import PromptEncoder
from luthier_tune.adapters import AdapterSettings, adapted_student
from luthier_tune.examples import batch_of_step, random_for
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import Training
from luthier_tune.some_layers import LayerSettings, objective_of, partial_student
from luthier_tune.task import Student
from luthier_tune.training import Trainer

TOP = 8
CONTENDERS: dict[str, tuple[float, AdapterSettings | LayerSettings]] = {
    "lora, rank 16": (5e-4, AdapterSettings(rank=16)),
    f"layers, top {TOP}, rank 16": (5e-4, LayerSettings(top=TOP, rank=16)),
    f"layers, top {TOP}": (1e-4, LayerSettings(top=TOP)),
}
VALID = 40
BATCH = 4


@dataclass
class Contender:
    """One of those that are compared.

    Attributes:
        trainer: what does its steps.
        rate: its learning rate at the start.
        used: CPU seconds so far.
        records: tokens and CPU seconds of each step.
    """

    trainer: Trainer[Pair]
    rate: float
    used: float = 0.0
    records: list[tuple[int, float]] = field(default_factory=list)

    def advance(self, train: list[Pair], budget: float) -> None:
        """Do one step."""
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = self.rate * (1 - self.used / budget)
        batch = [train[i] for i in batch_of_step(len(self.records), len(train), BATCH, SEED)]
        started = time.process_time()
        self.trainer.objective.module.train()
        self.trainer.train_on(batch)
        spent = time.process_time() - started
        self.used += spent
        self.records.append((sum(map(self.trainer.objective.tokens, batch)), spent))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory; SmolLM2-135M-Instruct if not given")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--examples", type=int, default=160)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        model = options.model or directory / "model"
        if options.model is None:
            write_pretrained(fetch(MODEL), model)
        pairs = docstring_pairs(PromptEncoder.from_directory(model), directory)
        random_for(SEED, "bench").shuffle(pairs)
        train, valid = pairs[VALID : VALID + options.examples], pairs[:VALID]
        contenders = {name: make(name, Model.at(model, "causal-lm"), train, valid, directory) for name in CONTENDERS}
        before = {name: each.trainer.losses(valid).mean for name, each in contenders.items()}
        while waiting := [each for each in contenders.values() if each.used < options.seconds]:
            for each in waiting:
                each.advance(train, options.seconds)
        print(
            f"{len(train)} examples of {sum(len(g) + len(t) for g, t in train)} tokens, {options.seconds:g} CPU s each"
        )
        for name, each in contenders.items():
            epochs = len(each.records) * BATCH / len(train)
            late = each.records[-(-len(train) // BATCH) :]
            speed = sum(done for done, _ in late) / sum(seconds for _, seconds in late)
            after = each.trainer.losses(valid).mean
            print(
                f"{name:24} {epochs:5.1f} epochs, {speed:6.1f} tokens a CPU s in the later ones, "
                f"validation loss {before[name]:.3f} -> {after:.3f}"
            )
    return 0


def make(name: str, model: Model, train: list[Pair], valid: list[Pair], directory: Path) -> Contender:
    """A contender at its start."""
    rate, settings = CONTENDERS[name]
    ctx = make_context(directory / name, seed=SEED)
    training = Training(learning_rate=rate, max_epochs=2)
    if isinstance(settings, AdapterSettings):
        student: Student = adapted_student(model, settings, ctx, ctx.device)
        objective = CompletionLoss(student.packed)
    else:
        student = partial_student(model, settings, ctx)
        objective = objective_of(student, settings, train, valid, settings=training, ctx=ctx)
    trainer = Trainer(objective, student.parameters, train, valid, settings=training, ctx=ctx)
    return Contender(trainer, rate)


if __name__ == "__main__":
    raise SystemExit(main())
