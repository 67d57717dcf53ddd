"""The pruner `vocabulary`: which tokens go, the model without them, and what that changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from luthier import InputError
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder
from luthier_models.runtime import TransformersGenerator
from luthier_prune.calibration import read_calibration
from luthier_prune.course import QUALITY_BY_SIZE, on_the_way, record_sizes
from luthier_prune.damage import Yardstick
from luthier_prune.rebuilding import count_parameters
from luthier_prune.sizing import largest_within, settled
from luthier_prune.tokens.numbers import named_ids, row_parameters, row_tensors, with_rows
from luthier_prune.tokens.ranking import Ranking, count_tokens, rank
from luthier_prune.tokens.tokenizer import without_others, write_tokenizer
from luthier_tune.examples import encode_split, rows_of_split
from luthier_tune.task import copy_companions

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import PreTrainedModel

    from luthier import Context, Dataset, Frame, Message, Model
    from luthier_prune.options import Pruning

_WHOLE = 2**31
"""Longer than any example: tokens are counted in all of it."""

_SAMPLE = 2000
"""Characters of a text that the likelihood is measured on: it is a comparison, and must be cheap."""


class Tokens:
    """The tokens of a model; `luthier_prune.sizing.Units`."""

    unit = "tokens"

    def __init__(self, model: PreTrainedModel, ranking: Ranking) -> None:
        self._whole = count_parameters(model)
        self._of_row = row_parameters(model)
        self._rows = len(next(iter(row_tensors(model).values())))
        self.total = len(ranking.order)
        self.removable = self.total - ranking.fixed

    def parameters(self, removed: int) -> int:
        """Rows that no token has go with the first."""
        rows = self._rows if not removed else self.total - removed
        return self._whole - (self._rows - rows) * self._of_row


def prune_vocabulary(
    model: Model, data: Dataset, ctx: Context, settings: Pruning, *, min_frequency: int | None
) -> None:
    """Write the model with fewer tokens to `ctx.output`.

    Raises:
        InputError: if the tokenizer cannot be pruned, the target cannot be reached, or there is too little data.
    """
    encoder = PromptEncoder.from_directory(model.path)
    backend: Any = encoder.tokenizer
    record = json.loads(backend.backend_tokenizer.to_str())
    calibration = read_calibration(data, encoder, settings, ctx)
    counts = count_tokens(encode_split(data, "train", encoder, _WHOLE).pairs)
    loaded = load_causal_lm(model.path, device=ctx.device)
    ranking = rank(record, counts, _fixed(loaded, encoder, record))
    units = Tokens(loaded, ranking)
    removed = _settled(units, ranking, settings, min_frequency)
    yardstick = Yardstick(loaded, calibration.held_out)
    curve = lost_probability(yardstick, ranking.order)
    if removed is None:
        assert settings.max_kl is not None
        removed = largest_within(units, settings.max_kl, curve.__getitem__)
    kept = sorted(ranking.order[: units.total - removed])
    _write(loaded, kept, without_others(record, kept), model.path, ctx.output)
    means, sizes = yardstick.by_example(_lost(yardstick, kept, ranking.order))
    mean = math.fsum(m * n for m, n in zip(means, sizes, strict=True)) / sum(sizes)
    ctx.metric("mean_kl", mean, per_example=means, weights=sizes)
    ctx.metric("removed_tokens", removed)
    ctx.metric("vocabulary_before", units.total)
    ctx.metric("vocabulary", len(kept))
    record_sizes(model.path, ctx, units.parameters(0), units.parameters(removed))
    ctx.table("removed-tokens", _removed(backend, ranking, removed))
    ctx.table(QUALITY_BY_SIZE, _by_size(units, curve, [0, *on_the_way(removed, settings.curve), removed]))
    rows = rows_of_split(data, calibration.split, limit=settings.calibration_examples, seed=ctx.seed)
    _record_texts(model.path, rows, data.form, ctx)
    ctx.log.info("%d of %d tokens stay; KL %.4g nats a token", len(kept), units.total, mean)


def _fixed(model: PreTrainedModel, encoder: PromptEncoder, record: Mapping[str, Any]) -> set[int]:
    """The ids that configurations, the tokenizer and the chat template name."""
    processor = record.get("post_processor") or {}
    around = {number for special in _specials(processor) for number in special}
    return (named_ids(model) | around | encoder.end_tokens | set(encoder.tokenizer.all_special_ids)) & set(
        encoder.tokenizer.get_vocab().values()
    )


def _specials(processor: Mapping[str, Any]) -> list[list[int]]:
    found = [special["ids"] for special in (processor.get("special_tokens") or {}).values()]
    found += [[processor[name][1]] for name in ("sep", "cls") if name in processor]
    return found + [ids for inner in processor.get("processors") or () for ids in _specials(inner)]


def _settled(units: Tokens, ranking: Ranking, settings: Pruning, min_frequency: int | None) -> int | None:
    """How many tokens go; None where a budget of quality decides, which must be measured."""
    if settings.target is not None:
        return settled(units, settings)
    least = min_frequency or 1
    rare = sum(ranking.uses[number] < least for number in ranking.order[ranking.fixed :])
    if not rare:
        raise InputError(
            f"every token occurs {least} times or more in the split `train`",
            "Raise `min_frequency`, give a target, or leave this step out.",
        )
    return rare


def lost_probability(yardstick: Yardstick, order: Sequence[int]) -> list[float]:
    """The divergence of a vocabulary without the last tokens of an order, in nats a token, by how many those are.

    Without some tokens the others share the probability in proportion; the Kullback-Leibler divergence of the
    unpruned distribution from that is minus the logarithm of what they had before. (The other direction is infinite.)
    """
    rarest_first = torch.tensor(list(reversed(order)))
    total = torch.zeros(len(order), dtype=torch.float64)

    def add(logits: Tensor) -> Tensor:
        lost = logits[:, rarest_first.to(logits.device)].softmax(1).cpu().double().cumsum(1)
        total.sub_(torch.log1p(-lost.clamp(max=1 - 1e-12)).sum(0))
        return lost[:, 0]

    yardstick.by_target(add)
    return [0.0, *(total / yardstick.targets).tolist()][: len(order)]


def _lost(yardstick: Yardstick, kept: Sequence[int], order: Sequence[int]) -> list[Tensor]:
    """The divergence at each target, row by row."""
    stays, all_of_them = torch.tensor(kept), torch.tensor(order)

    def divergence(logits: Tensor) -> Tensor:
        scores = logits.double().cpu()
        return scores[:, all_of_them].logsumexp(1) - scores[:, stays].logsumexp(1)

    return yardstick.by_target(divergence)


def _by_size(units: Tokens, curve: Sequence[float], removed: Sequence[int]) -> pl.DataFrame:
    rows = [
        {"removed_tokens": count, "parameters": units.parameters(count), "mean_kl": curve[count]} for count in removed
    ]
    return pl.DataFrame(rows)


def _removed(tokenizer: Any, ranking: Ranking, removed: int) -> pl.DataFrame:
    """What went, the most used first."""
    gone = ranking.order[len(ranking.order) - removed :]
    rows = [{"token": tokenizer.decode([number]), "id": number, "uses": ranking.uses[number]} for number in gone]
    return pl.DataFrame(rows)


def _write(model: PreTrainedModel, kept: Sequence[int], record: Mapping[str, Any], source: Path, output: Path) -> None:
    copy_companions(source, output)
    # After the companions: the generation settings name ids.
    with_rows(model, kept).save_pretrained(output)
    write_tokenizer(output, record)


@dataclass(frozen=True)
class _Likelihood:
    """Of the same texts in other tokens."""

    bits_per_byte: float
    tokens_per_byte: float


def _record_texts(source: Path, rows: Frame, form: str, ctx: Context) -> None:
    """How likely the same bytes are, and in how many tokens: what can be compared across vocabularies."""
    pairs = [(prompt, completion[:_SAMPLE]) for prompt, completion in _pairs(rows, form) if completion.strip()]
    for suffix, directory in (("_before", source), ("", ctx.output)):
        measured = _likelihood(TransformersGenerator(directory, ctx), pairs)
        ctx.metric(f"bits_per_byte{suffix}", measured.bits_per_byte)
        ctx.metric(f"tokens_per_byte{suffix}", measured.tokens_per_byte)


def _likelihood(generator: TransformersGenerator, pairs: Sequence[tuple[Any, str]]) -> _Likelihood:
    size = sum(len(completion.encode()) for _, completion in pairs)
    scores = generator.score([prompt for prompt, _ in pairs], [completion for _, completion in pairs])
    nats = -math.fsum(value for score in scores for value in score.log_probabilities)
    tokens = sum(len(score.log_probabilities) for score in scores)
    return _Likelihood(nats / math.log(2) / size, tokens / size)


def _pairs(rows: Frame, form: str) -> list[tuple[str | Sequence[Message], str]]:
    """Prompts and completions of a dataset; of a conversation its last answer."""
    if form == "language-modelling":
        return [("", text or "") for text in rows["text"]]
    if form == "prompt-completion":
        return [
            (prompt or "", completion or "") for prompt, completion in rows.select("prompt", "completion").iter_rows()
        ]
    answered = [m for m in rows["messages"].to_list() if len(m) > 1 and m[-1]["role"] == "assistant"]
    return [(messages[:-1], messages[-1]["content"]) for messages in answered]
