"""trl's trainers on examples that are tokens already, with our schedule and without its files and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from luthier import Context
    from luthier_preference.course import Course
    from luthier_preference.options import Training


class _Tokenised:
    """What both trainers do in our way; goes before trl's class."""

    course: Course
    optimizer: Any
    lr_scheduler: Any

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Keep the tokens: trl would render and tokenise prompt and answer together, and not as serving does."""
        return dataset

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Make the schedule, whose end may not be known yet."""
        schedule = LambdaLR(optimizer or self.optimizer, self.course.rate)
        self.lr_scheduler = schedule
        return schedule

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
    course: Course,
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
        course: what goes on beside.
        options: what is the loss's own: `beta`, and KTO's weights.
    """
    paired = "chosen_ids" in rows[0]
    on_cpu = model.device.type == "cpu"
    arguments = (DPOConfig if paired else KTOConfig)(
        output_dir=str(ctx.checkpoint),
        max_steps=course.steps,
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
        callbacks=[course],
    )
    trainer.course = course
    trainer.remove_callback(PrinterCallback)
    return trainer
