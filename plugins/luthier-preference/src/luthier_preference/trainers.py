"""trl's trainers on examples that are tokens already, with our schedule and without its files and prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from luthier_preference.checkpoints import room_needed

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from luthier import Context
    from luthier_preference.callback import CourseCallback
    from luthier_tune.options import Training


ENDLESS = 1_000_000_000
"""What trl takes for the number of steps: a callback ends it."""


_ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids")


class _Tokenised:
    """What both trainers do in our way; goes before trl's class."""

    rate: Callable[[int], float]
    args: Any
    optimizer: Any
    lr_scheduler: Any

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Keep the tokens: trl would render and tokenise prompt and answer together, and not as serving does."""
        return dataset

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Make the schedule, whose end may not be known yet."""
        schedule = LambdaLR(optimizer or self.optimizer, self.rate)
        self.lr_scheduler = schedule
        return schedule

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint.

        Raises:
            LuthierError: if the disk is full; the last checkpoint stays.
        """
        with room_needed(Path(self.args.output_dir)):
            super()._save_checkpoint(model, trial)  # type: ignore[misc]  # of trl's class

    def _send_telemetry(self) -> None:
        """Tell nobody: a step reaches no network."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: a checkpoint is no model to publish."""


class PairTrainer(_Tokenised, DPOTrainer):  # type: ignore[misc]
    """trl's DPOTrainer on tokens."""


class JudgementTrainer(_Tokenised, KTOTrainer):  # type: ignore[misc]
    """trl's KTOTrainer on tokens."""


def make_trainer(
    rows: Sequence[Mapping[str, Any]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ctx: Context,
    *,
    peft_config: LoraConfig,
    settings: Training,
    **options: Any,
) -> Any:
    """The trainer for rows of pairs, or of judgements.

    Args:
        rows: as `examples.rows_of_pairs` or `examples.rows_of_judgements` give them.
        model: what gets the adapters; without them it is the reference.
        tokenizer: of which trl reads the padding token.
        ctx: the seed, and where checkpoints go.
        peft_config: the adapters.
        settings: the configuration.
        options: what is the loss's own: `beta`, and KTO's weights.
    """
    paired = "chosen_ids" in rows[0]
    on_cpu = model.device.type == "cpu"
    arguments = (DPOConfig if paired else KTOConfig)(
        output_dir=str(ctx.checkpoint),
        max_steps=ENDLESS,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        max_length=None,
        seed=ctx.seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
        **options,
    )
    trainer = (PairTrainer if paired else JudgementTrainer)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=tokenizer,
        peft_config=peft_config,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def follow(trainer: Any, callback: CourseCallback) -> None:
    """Let the trainer keep to a course."""
    trainer.rate = callback.rate
    trainer.add_callback(callback)


class TrainerLoss:
    """What a trainer minimises, by which memory is estimated.

    Args:
        trainer: from `make_trainer`; its model has no dropout.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.module: torch.nn.Module = trainer.model
        self.device: torch.device = trainer.model.device

    def tokens(self, example: Mapping[str, Any]) -> int:
        """All tokens that gradients go through, without the padding; each answer has the prompt before it."""
        return sum(len(example["prompt_ids"]) + len(example[name]) for name in _ANSWERS if name in example)

    def batches(self, examples: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], Any]]:
        """All of them at once, as trl does."""
        yield list(range(len(examples))), self._trainer._prepare_inputs(self._trainer.data_collator(list(examples)))

    def loss(self, batch: Any) -> Tensor:
        """The trainer's own."""
        # In evaluation mode it leaves the batch out of its count of tokens and out of its log.
        self.module.eval()
        loss: Tensor = self._trainer.compute_loss(self.module, batch)
        return loss
