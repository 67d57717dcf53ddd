"""The contenders of `bench_tuning.py`: one optimizer step of each, on a batch of examples that is given as ids.

The comparators as their documentation makes them best on a CPU, in float32:

- Trainer: `train_sampling_strategy="group_by_length"`, sdpa attention, its default optimizer; its
  collator pads to the longest example, and its loss needs the logits of all positions.
- SFTTrainer: `packing=True` (best-fit decreasing), `completion_only_loss`, `use_cpu=True, bf16=False,
  gradient_checkpointing=False`. trl recommends flash attention for packing, which no CPU has; with
  sdpa it passes no attention mask, so that transformers reads the borders of documents off the
  position ids. The equal losses that are printed show that they are kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as HfDataset  # type: ignore[import-untyped]
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from tuning_examples import LONGEST, SEED

from luthier.testing import make_context
from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel, Pair, fill_rows
from luthier_models.prompts import PromptEncoder
from luthier_tune.adapters import AdapterSettings, inject
from luthier_tune.lean import LeanModel
from luthier_tune.loss import CompletionLoss
from luthier_tune.options import Training
from luthier_tune.training import Trainer as OurTrainer

ADAPTER = AdapterSettings(rank=16, alpha=32.0)
LEARNING_RATE = 5e-4

Step = Callable[[Sequence[Pair]], float]

LEAN = "luthier, lean path"
PLAIN = "luthier, plain path"
TRAINER = "Trainer + peft, padded"
PACKED = "SFTTrainer, packed"
SHORT_ROWS = f"SFTTrainer, rows of {LONGEST}"
NAMES = (LEAN, PLAIN, TRAINER, PACKED, SHORT_ROWS)


def make_step(name: str, model: Path, encoder: PromptEncoder, sample: Sequence[Pair], scratch: Path) -> Step:
    """The step of one contender, from the same start as the others'."""
    if name in (LEAN, PLAIN):
        return our_step(LeanModel if name == LEAN else PackedModel, model, scratch)
    if name == TRAINER:
        return trainer_step(model, encoder, scratch)
    return sft_step(model, encoder, sample, scratch, LONGEST if name == SHORT_ROWS else 1024)


def adapted_model(directory: Path) -> Any:
    """The model with adapters; the same seed gives each contender the same ones."""
    return inject(load_causal_lm(directory), ADAPTER, SEED)


def our_step(kind: type[PackedModel], model: Path, scratch: Path) -> Step:
    """The step of `luthier_tune`."""
    adapted = adapted_model(model)
    parameters = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    packed = kind(adapted.get_base_model().eval())
    settings = Training(learning_rate=LEARNING_RATE)
    context = make_context(scratch / kind.__name__)
    trainer = OurTrainer(CompletionLoss(packed), parameters, [], [], settings=settings, ctx=context)
    # The model is asked how it may be called before anything is timed.
    _ = packed.head, packed.isolates_documents
    adapted.train()
    return lambda batch: trainer.train_on(batch)[0]


def common_arguments() -> dict[str, Any]:
    """What both Trainers are told."""
    return {
        "learning_rate": LEARNING_RATE,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
    }


def records(pairs: Sequence[Pair]) -> list[dict[str, list[int]]]:
    """Examples as the Trainers take them: labels on the completion only."""
    return [
        {"input_ids": [*given, *targets], "labels": [-100] * len(given) + list(targets)} for given, targets in pairs
    ]


def trainer_step(model: Path, encoder: PromptEncoder, scratch: Path) -> Step:
    """A step of transformers' Trainer on padded batches."""
    arguments = TrainingArguments(
        output_dir=str(scratch / "trainer"), train_sampling_strategy="group_by_length", **common_arguments()
    )
    collator = DataCollatorForSeq2Seq(encoder.tokenizer, padding=True)
    trainer = Trainer(adapted_model(model), arguments, data_collator=collator, processing_class=encoder.tokenizer)
    return drive(trainer, lambda batch: [collator(records(batch))])


def sft_step(model: Path, encoder: PromptEncoder, sample: Sequence[Pair], scratch: Path, row: int) -> Step:
    """A step of trl's SFTTrainer on packed batches: rows of `row` tokens, 1024 by its default.

    Short rows with gradient accumulation are what its documentation does not say, but what suits a CPU.
    """
    arguments = SFTConfig(
        output_dir=str(scratch / "sft"),
        packing=True,
        packing_strategy="bfd",
        max_length=row,
        completion_only_loss=True,
        **common_arguments(),
    )
    data = [
        {"input_ids": [*given, *targets], "completion_mask": [0] * len(given) + [1] * len(targets)}
        for given, targets in sample
    ]
    trainer = SFTTrainer(
        adapted_model(model), arguments, train_dataset=HfDataset.from_list(data), processing_class=encoder.tokenizer
    )

    def collate(batch: Sequence[Pair]) -> list[Any]:
        examples = records(batch)
        rows = fill_rows([len(example["input_ids"]) for example in examples], row)
        return [collate_row([examples[number] for number in members]) for members in rows]

    def collate_row(examples: list[dict[str, list[int]]]) -> Any:
        packed = {key: [token for example in examples for token in example[key]] for key in ("input_ids", "labels")}
        return trainer.data_collator([packed | {"seq_lengths": [len(e["input_ids"]) for e in examples]}])

    return drive(trainer, collate)


def drive(trainer: Any, collate: Callable[[Sequence[Pair]], list[Any]]) -> Step:
    """One step as the trainer's own loop does it: collate, `training_step`, clip, optimizer."""
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    trainer.model_wrapped = trainer.model
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]

    def step(batch: Sequence[Pair]) -> float:
        targets = torch.tensor(sum(len(labels) for _, labels in batch))
        trainer.model.train()
        loss = sum(float(trainer.training_step(trainer.model, inputs, targets)) for inputs in collate(batch))
        torch.nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        optimizer.step()
        trainer.model.zero_grad()
        return loss

    return step
