"""Validators: `perplexity`, `rouge` and `parity`.

Importing this module loads no heavy library; the components import their implementations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from luthier import component, hookimpl

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator


@component(needs={"data": {"prompt-completion", "language-modelling"}})
def perplexity(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] | None = None,
) -> None:
    """Measure perplexity and bits per byte on held-out text.

    Metrics: `perplexity`, per token of the completions (or texts), and `bits_per_byte`, which also
    compares models of different tokenizers. Tokens that end a turn count.

    Args:
        split: the examples to measure on.
        max_examples: measure on so many, chosen by a hash of their ids and spread over groups; all by
            default.
    """
    from luthier_validate.likelihood import measure_perplexity

    measure_perplexity(subject, data, ctx, split=split, max_examples=max_examples)


@component(needs={"data": {"prompt-completion"}})
def rouge(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 200,
    max_new_tokens: Annotated[int, Ge(1)] = 64,
    use_stemmer: bool = True,
    words: Literal["ascii", "unicode"] = "ascii",
) -> None:
    """Compare greedy completions with the reference completions by ROUGE.

    Metrics: `rouge1`, `rouge2` and `rougeL` (F-measures from 0 to 1, means over examples), and
    `lead_rougeL`: what copying the document's first sentence would reach, a baseline that many
    summarizers do not beat. The table `generations` has the texts.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
        max_new_tokens: completions are cut after so many tokens.
        use_stemmer: compare English word stems (Porter), as published figures mostly do.
        words: `ascii` compares words of a-z and 0-9, as the rouge-score package does; `unicode` takes
            the letters of every script, for other languages than English.
    """
    from luthier_validate.overlap import measure_rouge

    measure_rouge(
        subject,
        data,
        ctx,
        split=split,
        max_examples=max_examples,
        max_new_tokens=max_new_tokens,
        use_stemmer=use_stemmer,
        words=words,
    )


@component(needs={"data": {"prompt-completion", "language-modelling"}})
def parity(
    subject: Generator,
    reference: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: Literal["train", "valid", "test"] = "test",
    max_examples: Annotated[int, Ge(1)] = 40,
) -> None:
    """Measure how far an exported or quantized model is from its reference, token by token.

    Both read the same held-out text (teacher forcing). Metrics: `mean_kl`, the mean over tokens of the
    Kullback-Leibler divergence KL(reference || subject) in nats; `top1_agreement`, the share of tokens
    where both find the same token most probable; `perplexity_ratio`, the subject's perplexity over the
    reference's. The table `parity` has the single examples.

    Args:
        split: the examples to measure on.
        max_examples: measure on at most so many, chosen by a hash of their ids and spread over groups.
    """
    from luthier_validate.divergence import measure_parity

    measure_parity(subject, reference, data, ctx, split=split, max_examples=max_examples)


@hookimpl
def luthier_validators() -> list[Callable[..., Any]]:
    """Give the validators."""
    return [perplexity, rouge, parity]
