"""Greedy completions of held-out prompts, and the table `generations` that keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from luthier_validate.examples import Examples, select_examples

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator


def complete(
    subject: Generator, data: Dataset, *, split: str, max_examples: int, max_new_tokens: int
) -> tuple[Examples, list[str]]:
    """The examples to measure on, and the subject's greedy completion of each.

    Raises:
        InputError: if the split is empty.
    """
    examples = select_examples(data, split, max_examples)
    return examples, subject.generate(examples.prompts, max_new_tokens=max_new_tokens)


def keep_generations(ctx: Context, examples: Examples, outputs: Sequence[str], **scores: Sequence[float]) -> None:
    """Write the table `generations`: prompts, references and outputs, and how each output scored."""
    table = {
        "id": examples.ids,
        "prompt": examples.asked,
        "reference": examples.completions,
        "output": outputs,
        **scores,
    }
    ctx.table("generations", pl.DataFrame(table))
