"""What the report shows of a new model: its parameters by block, and the sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from luthier import Context


def record_parameters(blocks: Mapping[str, int], vocabulary: int, ctx: Context) -> None:
    """Record metrics and a table of a new model's sizes, and log the sum.

    Args:
        blocks: the parameters of each block.
        vocabulary: how many tokens there are.
        ctx: where to.
    """
    total = sum(blocks.values())
    ctx.metric("parameters", total)
    ctx.metric("vocabulary", vocabulary)
    ctx.table("parameters", pl.DataFrame({"block": list(blocks), "parameters": list(blocks.values())}))
    terms = " + ".join(f"{count:,} {name}" for name, count in blocks.items() if count)
    ctx.log.info("%s = %s parameters", terms, f"{total:,}")
