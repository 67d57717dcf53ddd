"""The validator `perplexity`, and what others share of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier import InputError, PluginError
from luthier_validate.examples import select_examples

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator, Score


def measure_perplexity(
    subject: Generator, data: Dataset, ctx: Context, *, split: str, max_examples: int | None
) -> None:
    """Record `perplexity` and `bits_per_byte`; see the component `perplexity`.

    Raises:
        InputError: if the split is empty, or no example has a token to score.
        PluginError: if the subject gives log-probabilities that are none.
    """
    examples = select_examples(data, split, max_examples)
    scores = subject.score(examples.prompts, examples.completions)
    totals = negative_log_likelihoods(scores)
    tokens = [len(score.log_probabilities) for score in scores]
    # Weights say how much an example counts; one without tokens (or bytes) counts nothing.
    value = math.exp(weighted_mean(_ratios(totals, tokens), tokens))
    ctx.metric("perplexity", value, per_example=_ratios(totals, tokens), weights=tokens, aggregate="exp-mean")
    record_bits_per_byte(ctx, "bits_per_byte", totals, byte_sizes(examples.completions))


def record_bits_per_byte(ctx: Context, name: str, nats: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Record a metric in bits per byte over all examples; gives that of each.

    Args:
        ctx: gets the metric.
        name: of the metric.
        nats: the negative log-likelihood of each example.
        sizes: the bytes of each example.

    Raises:
        InputError: if no example has a byte.
    """
    per_byte = _ratios([each / math.log(2) for each in nats], sizes)
    ctx.metric(name, weighted_mean(per_byte, sizes), per_example=per_byte, weights=sizes)
    return per_byte


def byte_sizes(texts: Sequence[str]) -> list[int]:
    """The length of each text in UTF-8."""
    return [len(text.encode("utf-8", "surrogatepass")) for text in texts]


def negative_log_likelihoods(scores: Sequence[Score]) -> list[float]:
    """The negative log-likelihood of each completion, in nats.

    Raises:
        PluginError: if one is not finite.
    """
    totals = [-math.fsum(score.log_probabilities) for score in scores]
    if not all(map(math.isfinite, totals)):
        raise PluginError(
            "the model gives log-probabilities that are not finite",
            "It is broken, or its precision overflows: try float32, or another quantization.",
        )
    return totals


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean of `values`, weighted.

    Raises:
        InputError: if all weights are zero, because no example has anything to measure.
    """
    total = math.fsum(weights)
    if total == 0:
        raise InputError(
            "no example has a token to score: all completions are empty",
            "Look at the data that the `format` step gave.",
        )
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / total


def _ratios(totals: Sequence[float], counts: Sequence[int]) -> list[float]:
    return [total / count if count else 0.0 for total, count in zip(totals, counts, strict=True)]
