"""The cleaner `shout`: an example of a third party's plugin. This module is light; `_capitals` does the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from luthier import Context, hookimpl

if TYPE_CHECKING:
    import polars as pl

Share = Annotated[float, Interval(ge=0, le=1)]


def shout(frame: pl.DataFrame, ctx: Context, *, max_capitals: Share = 0.3) -> pl.DataFrame:
    """Drop documents written mostly in capitals.

    Args:
        max_capitals: the largest share of a document's letters that may be capitals.
    """
    from luthier_shout._capitals import without_shouts

    return without_shouts(frame, ctx, max_capitals)


@hookimpl
def luthier_cleaners() -> list[Callable[..., Any]]:
    """Give the cleaner."""
    return [shout]
