"""Runs in the plugin's own environment: trl 0.24 on transformers 4.57."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset as HfDataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from luthier_optimum.legacy import as_transformers_4

if TYPE_CHECKING:
    from luthier import Context, Dataset


@dataclass(frozen=True)
class Settings:
    """The configuration of `trl_sft`."""

    rank: int
    learning_rate: float
    batch_size: int
    max_steps: int
    max_length: int


def tune(model: Path, data: Dataset, ctx: Context, settings: Settings) -> None:
    """Train adapters on the training split, merge them, and write the whole model to `ctx.output`."""
    rows = data.frame("train").select("prompt", "completion").rows()
    examples = HfDataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "completion": [{"role": "assistant", "content": completion}],
            }
            for prompt, completion in rows
        ]
    )
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        legacy = as_transformers_4(model, Path(scratch) / "model")
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(legacy, dtype=torch.float32, local_files_only=True),
            processing_class=AutoTokenizer.from_pretrained(legacy, local_files_only=True),
            train_dataset=examples,
            peft_config=LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear"),
            args=_arguments(Path(scratch) / "trainer", ctx, settings),
            callbacks=[_Progress(ctx, settings.max_steps)],
        )
        outcome = trainer.train()
        ctx.metric("train_loss", outcome.training_loss)
        trainer.model.merge_and_unload().save_pretrained(ctx.output)
    for file in sorted(model.iterdir()):
        # The tokenizer and the template are the model's own, as every other step reads them.
        if file.is_file() and not (ctx.output / file.name).exists() and "safetensors" not in file.name:
            shutil.copyfile(file, ctx.output / file.name)


def _arguments(directory: Path, ctx: Context, settings: Settings) -> SFTConfig:
    return SFTConfig(
        output_dir=str(directory),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
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


class _Progress(TrainerCallback):
    def __init__(self, ctx: Context, total: int) -> None:
        self._ctx = ctx
        self._total = total

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self._ctx.progress(state.global_step, self._total, loss=logs["loss"])
