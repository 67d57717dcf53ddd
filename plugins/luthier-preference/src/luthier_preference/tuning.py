"""Training on preferences, from a dataset to a merged model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luthier_models.loading import load_causal_lm
from luthier_models.packing import PackedModel
from luthier_models.prompts import PromptEncoder
from luthier_preference.callback import CourseCallback
from luthier_preference.checkpoints import find_checkpoint
from luthier_preference.examples import Answers, Encoded, encode_split, rows_of_judgements, rows_of_pairs
from luthier_preference.rewards import RewardMeter, Rewards, mean
from luthier_preference.trainers import TrainerLoss, follow, make_trainer
from luthier_tune.adapters import AdapterSettings, lora_config, save_merged
from luthier_tune.checkpoint import explained_full_disk, relevant
from luthier_tune.course import Course
from luthier_tune.distributed import refuse_torchrun
from luthier_tune.memory import explained
from luthier_tune.task import check_start, check_usable, copy_companions, fitting_length, record

if TYPE_CHECKING:
    from luthier import Context, Dataset, Model
    from luthier_tune.options import Training

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
    check_start(settings, ctx)
    refuse_torchrun()
    encoder = PromptEncoder.from_directory(model.path)
    train, valid = _read_examples(data, encoder, settings, ctx)
    rows, options = prepare(train.examples)
    base: Any = load_causal_lm(model.path, device=ctx.device)
    paddings = [(config, config.pad_token_id) for config in (base.config, base.generation_config)]
    use_cache = base.config.use_cache
    adapter = lora_config(base, AdapterSettings(rank=adapters.rank, alpha=adapters.alpha))
    trainer = make_trainer(rows, base, encoder.tokenizer, ctx, peft_config=adapter, settings=settings, **options)
    adapted = trainer.model
    meter = RewardMeter(adapted, PackedModel(base), valid, beta)
    course = Course(
        settings,
        ctx,
        {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad},
        train=len(rows),
        valid=len(valid),
        measure=meter.measure,
        kind=Rewards,
    )
    course.check_resources(TrainerLoss(trainer), rows)
    made_with = relevant(settings) | vars(adapters) | dict(options)
    made_with |= {"seed": ctx.seed, "examples": len(rows), "measured examples": len(valid)}
    found = find_checkpoint(ctx.checkpoint, made_with)
    with explained("in training", settings):
        course.begin(found[1] if found else None)
        follow(trainer, CourseCallback(course, settings, ctx, made_with, examples=len(rows)))
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    course.finish()
    course.choose_weights()
    record(course, train, ctx)
    if course.last:
        _record_rewards(course.last, ctx)
    # trl wrote its own there.
    base.config.use_cache = use_cache
    for config, token in paddings:
        config.pad_token_id = token
    adapted.eval()
    with explained_full_disk("the tuned model", ctx.output):
        save_merged(adapted, ctx.output, base_model=model.hash)
        copy_companions(model.path, ctx.output)


def _read_examples(
    data: Dataset, encoder: PromptEncoder, settings: Training, ctx: Context
) -> tuple[Encoded, list[Answers]]:
    """The training examples, and those that rewards are measured on: none, if all are of one kind."""
    max_length = fitting_length(encoder, settings.max_length)
    train = encode_split(data, "train", encoder, max_length)
    check_usable(
        len(train.examples),
        train.skipped,
        "prompts or answers are empty, the answers of a pair are the same, or they are longer than max_length "
        f"({max_length} tokens) with the prompt's template",
    )
    valid = encode_split(data, "valid", encoder, max_length, limit=settings.valid_examples, seed=ctx.seed).examples
    if valid and data.form != "preference" and len({each.liked for each in valid}) == 1:
        ctx.log.warning(
            "all validation examples are %s: there is nothing to tell apart, so that nothing is measured and the last "
            "weights are kept",
            "liked" if valid[0].liked else "disliked",
        )
        valid = []
    return train, valid


def _record_rewards(rewards: Rewards, ctx: Context) -> None:
    ctx.metric("valid_loss", mean(rewards.losses), per_example=rewards.losses)
    ctx.metric("reward_accuracy", mean(rewards.wins), per_example=rewards.wins)
    ctx.metric("reward_preferred", mean(rewards.preferred), per_example=rewards.preferred)
    ctx.metric("reward_others", mean(rewards.others), per_example=rewards.others)
    if rewards.paired:
        ctx.metric("reward_margin", mean(rewards.margins), per_example=rewards.margins)
    else:
        ctx.metric("reward_margin", rewards.margin)
