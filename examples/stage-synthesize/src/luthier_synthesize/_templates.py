"""The work of `templates`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from luthier import Context
from luthier_synthesize import PLACEHOLDERS, Template


def with_variants(frame: pl.DataFrame, ctx: Context, templates: Sequence[Template], variants: int) -> pl.DataFrame:
    """Each row, followed by its variants if it is one to train on; the columns stay the same."""
    rows = list(_rows(frame, ctx, templates, variants))
    ctx.metric("variants", len(rows) - frame.height)
    return pl.DataFrame(rows, schema=frame.schema)


def _rows(frame: pl.DataFrame, ctx: Context, templates: Sequence[Template], variants: int) -> Iterator[dict[str, Any]]:
    for row in frame.iter_rows(named=True):
        yield row
        if row["split"] != "train":
            continue
        for number in sorted(ctx.rng(row["id"]).sample(range(len(templates)), variants)):
            template = templates[number]
            yield {
                **row,
                "id": f"{row['id']}~{number + 1}",
                "prompt": _fill(template.prompt, row),
                "completion": _fill(template.completion, row),
            }


def _fill(template: str, row: dict[str, Any]) -> str:
    # In one pass: what stands in a row's text is no placeholder.
    return PLACEHOLDERS.sub(lambda match: str(row[match[1]]), template)
