"""Training on preferences, from a dataset to a merged model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel
from luthier_models.prompts import PromptEncoder
from luthier_preference.checkpoints import find_checkpoint
from luthier_preference.course import Course
from luthier_preference.examples import (
    Answers,
    Encoded,
    check_examples,
    encode_split,
    rows_of_judgements,
    rows_of_pairs,
)
from luthier_preference.rewards import RewardMeter, Rewards, mean
from luthier_preference.trainers import make_trainer
from luthier_tune.adapters import AdapterSettings, lora_config, save_merged
from luthier_tune.memory import explained
from luthier_tune.task import copy_companions

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model
    from luthier_preference.options import Training

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Adapters:
    """The rank of the adapters, and their scale."""

    rank: int
    alpha: float | None


def tune_on_pairs(
    model: Model, data: Dataset, ctx: Context, *, beta: float, adapters: Adapters, settings: Training
) -> None:
    """Direct preference optimisation (Rafailov et al., 2023, arXiv:2305.18290).

    Raises:
        InputError: if the data or the device cannot be used, or training diverges.
    """

    def prepare(examples: Sequence[Answers]) -> tuple[Rows, Mapping[str, float]]:
        return rows_of_pairs(examples), {"beta": beta}

    _tune(model, data, ctx, prepare, beta=beta, adapters=adapters, settings=settings)


def tune_on_judgements(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    beta: float,
    weights: tuple[float | None, float | None],
    adapters: Adapters,
    settings: Training,
) -> None:
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024, arXiv:2402.01306).

    Args:
        weights: of liked and of disliked answers; None twice for what makes both count alike.

    Raises:
        InputError: if the data or the device cannot be used, or training diverges.
    """

    def prepare(examples: Sequence[Answers]) -> tuple[Rows, Mapping[str, float]]:
        liked, disliked = balanced(weights, [each.liked for each in examples])
        if (liked_share := mean([each.liked for each in examples])) in (0, 1):
            kind = "liked" if liked_share else "disliked"
            ctx.log.warning("all training examples are %s: the model cannot learn what sets the two apart", kind)
        rows = rows_of_judgements(examples, settings.batch_size, ctx.seed)
        return rows, {"beta": beta, "desirable_weight": liked, "undesirable_weight": disliked}

    _tune(model, data, ctx, prepare, beta=beta, adapters=adapters, settings=settings)


def balanced(weights: tuple[float | None, float | None], liked: Sequence[bool]) -> tuple[float, float]:
    """The weights of liked and of disliked answers; if none is given, the rarer kind counts as much in all.

    The authors want the ratio of the weighted counts between 1 and 4/3 (their equation 8); this makes it 1.
    """
    if weights != (None, None):
        return tuple(1.0 if weight is None else weight for weight in weights)  # type: ignore[return-value]
    good = sum(liked)
    bad = len(liked) - good
    if not good or not bad:
        return 1.0, 1.0
    return max(1.0, bad / good), max(1.0, good / bad)


def _tune(
    model: Model,
    data: Dataset,
    ctx: Context,
    prepare: Callable[[Sequence[Answers]], tuple[Rows, Mapping[str, float]]],
    *,
    beta: float,
    adapters: Adapters,
    settings: Training,
) -> None:
    encoder = PromptEncoder.from_directory(model.path)
    train = encode_split(data, "train", encoder, settings.max_length)
    check_examples(train, settings.max_length)
    valid = encode_split(
        data, "valid", encoder, settings.max_length, limit=settings.valid_examples, seed=ctx.seed
    ).examples
    base: Any = load_causal_lm(model.path, device=ctx.device)
    paddings = [(config, config.pad_token_id) for config in (base.config, base.generation_config)]
    use_cache = base.config.use_cache
    course = Course(settings, ctx, examples=len(train.examples))
    rows, options = prepare(train.examples)
    trainer = make_trainer(
        rows,
        base,
        encoder.tokenizer,
        ctx,
        peft_config=lora_config(base, AdapterSettings(rank=adapters.rank, alpha=adapters.alpha)),
        settings=settings,
        course=course,
        **options,
    )
    adapted = trainer.model
    course.meter = RewardMeter(adapted, PackedModel(base), valid, beta) if valid else None
    found = find_checkpoint(ctx.checkpoint)
    with explained("in training", settings):
        course.begin(found[1] if found else None)
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    course.validate()
    _record(course, train, ctx)
    # trl wrote its own there.
    base.config.use_cache = use_cache
    for config, token in paddings:
        config.pad_token_id = token
    adapted.eval()
    save_merged(adapted, ctx.output, base_model=model.hash)
    copy_companions(model.path, ctx.output)


def _record(course: Course, train: Encoded, ctx: Context) -> None:
    """Metrics and tables of what happened."""
    curve, validation = course.progress.curve, course.progress.validation
    # The end of training: its last tenth, so that one batch does not decide.
    ctx.metric("train_loss", mean([record["loss"] for record in curve[-max(1, math.ceil(len(curve) / 10)) :]]))
    ctx.metric("steps", course.progress.step)
    ctx.metric("tokens", sum(record["tokens"] for record in curve))
    ctx.metric("skipped_examples", train.skipped)
    ctx.metric("shortened_examples", train.shortened)
    ctx.table("learning-curve", pl.DataFrame(curve))
    if course.last:
        ctx.table("validation-rewards", pl.DataFrame(validation))
        _record_rewards(course.last, ctx)


def _record_rewards(rewards: Rewards, ctx: Context) -> None:
    if not rewards.preferred or not rewards.others:
        ctx.log.warning("the validation split has answers of one kind only: there is nothing to tell apart")
        return
    ctx.metric("reward_accuracy", mean(rewards.wins), per_example=rewards.wins)
    ctx.metric("reward_preferred", mean(rewards.preferred), per_example=rewards.preferred)
    ctx.metric("reward_others", mean(rewards.others), per_example=rewards.others)
    if rewards.paired:
        ctx.metric("reward_margin", mean(rewards.margins), per_example=rewards.margins)
        ctx.metric("valid_loss", mean(rewards.losses), per_example=rewards.losses)
    else:
        ctx.metric("reward_margin", rewards.margin)
