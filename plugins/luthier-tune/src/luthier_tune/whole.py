"""Training of all weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel
from luthier_models.prompts import PromptEncoder
from luthier_tune.loss import CompletionLoss
from luthier_tune.task import check_start, copy_companions, read_examples, record
from luthier_tune.training import Trainer

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model
    from luthier_tune.options import Training


def tune(model: Model, data: Dataset, ctx: Context, settings: Training) -> None:
    """Train every weight on the data, and write the model to `ctx.output`.

    Raises:
        InputError: if the budget, the data or the device cannot be used, or training diverges.
    """
    check_start(settings, ctx)
    train, valid = read_examples(data, PromptEncoder.from_directory(model.path), settings, ctx.seed)
    # Weights of half precision would lose most of the small steps that training takes.
    whole: Any = load_causal_lm(model.path, device=ctx.device, dtype="float32")
    whole.requires_grad_(True)
    # A tied embedding is named once.
    parameters = dict(whole.named_parameters())
    trainer = Trainer(
        CompletionLoss(PackedModel(whole)), parameters, train.pairs, valid.pairs, settings=settings, ctx=ctx
    )
    trainer.run()
    record(trainer, train, ctx)
    whole.eval()
    whole.save_pretrained(ctx.output)
    copy_companions(model.path, ctx.output)
