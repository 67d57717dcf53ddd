"""The validator `parity`: token by token, a model against its reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from luthier import InputError, PluginError, Score
from luthier_validate.examples import Examples, select_examples
from luthier_validate.likelihood import negative_log_likelihoods, weighted_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context, Dataset, Generator

# Rows compared at a time: in float64, of a vocabulary of 50,000, a few arrays of 26 MB.
_ROWS = 64


@dataclass(frozen=True)
class Comparison:
    """One example's tokens: how many, the sum of their divergences (nats), how many agree."""

    tokens: int
    divergence: float
    agreeing: int


def measure_parity(
    subject: Generator, reference: Generator, data: Dataset, ctx: Context, *, split: str, max_examples: int
) -> None:
    """Record `mean_kl`, `top1_agreement`, `perplexity_ratio` and the table `parity`.

    Raises:
        InputError: if the split is empty, or the two do not split text into the same tokens.
        PluginError: if one gives logits that are not finite.
    """
    examples = select_examples(data, split, max_examples)
    compared = []
    for comparison in compare(subject, reference, examples):
        compared.append(comparison)
        ctx.progress(len(compared), len(examples.ids))
    tokens = [comparison.tokens for comparison in compared]
    kl = [comparison.divergence / max(1, comparison.tokens) for comparison in compared]
    agreement = [comparison.agreeing / max(1, comparison.tokens) for comparison in compared]
    ctx.metric("mean_kl", weighted_mean(kl, tokens), per_example=kl, weights=tokens)
    ctx.metric("top1_agreement", weighted_mean(agreement, tokens), per_example=agreement, weights=tokens)
    excess = _excess(subject, reference, examples, tokens)
    ratio = math.exp(weighted_mean(excess, tokens))
    ctx.metric("perplexity_ratio", ratio, per_example=excess, weights=tokens, aggregate="exp-mean")
    table = {"id": examples.ids, "tokens": tokens, "mean_kl": kl, "top1_agreement": agreement, "excess_nll": excess}
    ctx.table("parity", pl.DataFrame(table))


def compare(subject: Generator, reference: Generator, examples: Examples) -> Iterator[Comparison]:
    """Compare the logits of both, example by example; at no time are those of many in memory.

    Raises:
        InputError: if the two do not split text into the same tokens.
        PluginError: if one gives logits that are not finite.
    """
    texts = (examples.prompts, examples.completions)
    pairs = zip_longest(_each(subject.logits(*texts)), _each(reference.logits(*texts)))
    for row_id, (ours, theirs) in zip(examples.ids, pairs, strict=True):
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise _mismatch(row_id, _shape(ours), _shape(theirs))
        divergences = kl_divergences(theirs, ours)
        if not np.isfinite(divergences).all():
            raise PluginError(
                f"example {row_id}: a model gives logits that are not finite",
                "It is broken, or its precision overflows: try float32, or another quantization.",
            )
        agreeing = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        yield Comparison(len(ours), math.fsum(divergences), agreeing)


def kl_divergences(reference: NDArray[np.float32], subject: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(reference || subject) of each row, in nats.

    Args:
        reference: logits, (tokens, vocabulary).
        subject: logits of the same shape.

    Returns:
        One number a token, at least zero, computed in float64.
    """
    found = np.zeros(len(reference), np.float64)
    for start in range(0, len(reference), _ROWS):
        rows = slice(start, start + _ROWS)
        log_p, log_q = log_softmax(reference[rows]), log_softmax(subject[rows])
        p = np.exp(log_p)
        with np.errstate(invalid="ignore"):
            # A token that the reference excludes adds nothing, whatever the subject says: 0 log 0 = 0.
            terms = np.where(p == 0, 0.0, p * (log_p - log_q))
        # Rounding may leave a sum of -1e-17; a divergence is not negative. NaN stays.
        found[rows] = np.maximum(terms.sum(axis=1), 0.0)
    return found


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural-log probabilities of each row, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def _excess(subject: Generator, reference: Generator, examples: Examples, tokens: list[int]) -> list[float]:
    """By how many nats a token each example is less likely to the subject than to the reference."""
    texts = (examples.prompts, examples.completions)
    ours, theirs = subject.score(*texts), reference.score(*texts)
    for row_id, prompt, mine, other, count in zip(examples.ids, examples.prompts, ours, theirs, tokens, strict=True):
        first, second = len(mine.log_probabilities), len(other.log_probabilities)
        # The logits of plain text end where the context does, its scores do not.
        if first != second or first < count or (prompt and first > count):
            raise _mismatch(row_id, f"{first} tokens", f"{second} tokens")
    beginnings = (
        [Score(each.log_probabilities[:n]) for each, n in zip(of, tokens, strict=True)] for of in (ours, theirs)
    )
    differences = zip(*map(negative_log_likelihoods, beginnings), tokens, strict=True)
    return [(mine - other) / max(1, count) for mine, other, count in differences]


def _each(logits: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32] | None]:
    # Only for the type: zip_longest fills the shorter with None.
    yield from logits


def _shape(logits: NDArray[np.float32] | None) -> str:
    return "nothing" if logits is None else f"{len(logits)} tokens of a vocabulary of {logits.shape[1]}"


def _mismatch(row_id: str, ours: str, theirs: str) -> InputError:
    return InputError(
        f"example {row_id}: the subject sees {ours}, the reference {theirs}; they do not tokenise alike",
        "The reference is what the first `export` or `quantize` step was given, or the model that `reference:` names. "
        "Of a model whose vocabulary was pruned since, measure `bits-per-byte` or the task.",
    )
