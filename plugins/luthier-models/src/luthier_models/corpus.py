"""The texts of a dataset, whatever its form: what a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from luthier import Dataset

_COLUMNS = ("text", "prompt", "completion")


def split_texts(data: Dataset, split: str) -> Iterator[str]:
    """What a split has to read and to write, in the order of its rows; empty texts are left out."""
    for frame in data.frames():
        rows = frame.filter(pl.col("split") == split)
        if "messages" in rows.columns:
            for messages in rows["messages"].to_list():
                yield from (message["content"] for message in messages if message["content"])
            continue
        for row in rows.select(name for name in _COLUMNS if name in rows.columns).iter_rows():
            yield from (text for text in row if text)
