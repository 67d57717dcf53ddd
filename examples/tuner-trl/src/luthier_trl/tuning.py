"""Runs in the plugin's own environment: trl 0.24 on transformers 4.57."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset as HfDataset
from peft import LoraConfig
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from luthier_optimum.legacy import as_transformers_4

if TYPE_CHECKING:
    from luthier import Context, Dataset


MEASURED_STEPS = 5
ENDLESS = 1_000_000
"""What the trainer takes for the number of steps until they are known."""


@dataclass(frozen=True)
class Settings:
    """The configuration of `trl_sft`."""

    rank: int
    learning_rate: float
    batch_size: int
    max_steps: int | None
    max_minutes: float | None
    max_length: int
    valid_examples: int


class Budget(TrainerCallback):
    """How many steps there are: as asked for, or as fit into the minutes by the time of the first few."""

    def __init__(self, ctx: Context, settings: Settings) -> None:
        self.total = settings.max_steps
        self._ctx = ctx
        self._minutes = settings.max_minutes
        self._began = math.nan

    def factor(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a part of the peak: it falls linearly to zero."""
        start = 0 if self._minutes is None else MEASURED_STEPS
        if self.total is None or step < start or self.total <= start:
            return 1.0
        return max(0.0, (self.total - step) / (self.total - start))

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._minutes is not None and self.total is None and state.global_step == MEASURED_STEPS:
            seconds = (time.monotonic() - self._began) / MEASURED_STEPS
            self.total = max(MEASURED_STEPS, math.floor(60 * self._minutes / seconds))
        control.should_training_stop |= self.total is not None and state.global_step >= self.total

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self._ctx.progress(state.global_step, self.total, loss=logs["loss"])


class Trainer(SFTTrainer):
    """trl's trainer, with the schedule of a budget."""

    budget: Budget

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Make the schedule, whose end may not be known yet."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self.budget.factor)
        return self.lr_scheduler


def tune(model: Path, data: Dataset, ctx: Context, settings: Settings) -> None:
    """Train adapters on the training split, merge them, and write the whole model to `ctx.output`."""
    valid = _examples(data, "valid", settings.valid_examples) if settings.valid_examples else None
    budget = Budget(ctx, settings)
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        legacy = as_transformers_4(model, Path(scratch) / "model")
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(legacy, dtype=torch.float32, local_files_only=True),
            processing_class=AutoTokenizer.from_pretrained(legacy, local_files_only=True),
            train_dataset=_examples(data, "train"),
            eval_dataset=valid,
            peft_config=LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear"),
            args=_arguments(Path(scratch) / "trainer", ctx, settings),
            callbacks=[budget],
        )
        trainer.budget = budget
        if valid is not None:
            ctx.metric("valid_loss_before", trainer.evaluate()["eval_loss"])
        outcome = trainer.train()
        ctx.metric("train_loss", outcome.training_loss)
        ctx.metric("steps", outcome.global_step)
        if valid is not None:
            ctx.metric("valid_loss", trainer.evaluate()["eval_loss"])
        trainer.model.merge_and_unload().save_pretrained(ctx.output)
    for file in sorted(model.iterdir()):
        # The tokenizer and the template are the model's own, as every other step reads them.
        if file.is_file() and not (ctx.output / file.name).exists() and "safetensors" not in file.name:
            shutil.copyfile(file, ctx.output / file.name)


def _examples(data: Dataset, split: str, limit: int | None = None) -> HfDataset:
    rows = data.frame(split).select("prompt", "completion").head(limit or ENDLESS).rows()
    return HfDataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": completion}],
            }
            for prompt, completion in rows
        ]
    )


def _arguments(directory: Path, ctx: Context, settings: Settings) -> SFTConfig:
    return SFTConfig(
        output_dir=str(directory),
        max_steps=settings.max_steps or ENDLESS,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        max_length=settings.max_length,
        seed=ctx.seed,
        use_cpu=ctx.device == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
    )
