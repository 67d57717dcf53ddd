"""Conversations as lists of messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from luthier import Context, Dataset, InputError
from luthier_text._columns import require_columns
from luthier_text._examples import complete, fill, with_split
from luthier_text._template import Template, parse_with_columns
from luthier_text.formatters import Split

Message = dict[str, str]
MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})
MESSAGES = pl.List(MESSAGE)
ROLES = ("system", "user", "assistant")


def conversations_of_templates(
    data: Dataset, ctx: Context, templates: tuple[str, str], system: str | None, split: Split
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `messages`, of a prompt and an answer; see `formatters.chat`.

    Raises:
        InputError: if a template cannot be read, a column is not there, or a split comes out empty.
    """
    asked, answered = Template.parse(templates[0]), parse_with_columns(templates[1], "answer")
    require_columns(data, asked.columns, "chat: prompt", accept="scalar")
    require_columns(data, answered.columns, "chat: answer", accept="scalar")
    turns = [pl.lit(system)] if system else []
    turns += [fill(asked).str.strip_chars(), fill(answered).str.strip_chars()]
    roles = ROLES[-len(turns) :]
    messages = pl.concat_list(
        pl.struct(pl.lit(role).alias("role"), turn.alias("content")) for role, turn in zip(roles, turns, strict=True)
    )
    for frame in with_split(data, ctx, split, complete(asked) & complete(answered), "chat"):
        yield frame.select("id", "group", "split", messages.cast(MESSAGES).alias("messages"))


def conversations_of_column(
    data: Dataset, ctx: Context, column: str, system: str | None, split: Split
) -> Iterator[pl.DataFrame]:
    """Frames of `id`, `group`, `split`, `messages`, of a column of conversations; see `formatters.chat`.

    Raises:
        InputError: if the column is not there or holds something else, or a split comes out empty.
    """
    require_columns(data, [column], "chat: messages", accept="any")
    dtype = data.scan().collect_schema()[column]
    if not isinstance(dtype, pl.List) and dtype not in (pl.String, pl.Null):
        raise InputError(
            f"chat: messages: the column {column!r} is {dtype}, not a list of messages",
            "Each message has `role` and `content`; a list of them, or JSON text of one.",
        )
    good = pl.col(column).map_elements(lambda value: conversation(value) is not None, pl.Boolean, skip_nulls=False)
    kept = 0
    for frame in with_split(data, ctx, split, good, "chat"):
        found = [conversation(value, system) for value in frame[column].to_list()]
        kept += len(found)
        yield frame.select("id", "group", "split", pl.Series("messages", found, dtype=MESSAGES))
    rows = data.scan().select(pl.len()).collect().item()
    if kept < rows:
        ctx.log.warning("%d of %d conversations are malformed or have no answer, and were dropped", rows - kept, rows)


def conversation(value: Any, system: str | None = None) -> list[Message] | None:
    """The messages of a conversation that can be learned from, else None.

    Args:
        value: a sequence of mappings with `role` and `content`, or JSON text of one.
        system: the message to begin with where the conversation has none of its own.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    turns = [_message(turn) for turn in value] if isinstance(value, list | pl.Series) else []
    messages = [turn for turn in turns if turn is not None]
    if not messages or len(messages) < len(turns) or messages[-1]["role"] != "assistant":
        return None
    roles = [message["role"] for message in messages]
    if "system" in roles[1:] or "user" not in roles:
        return None
    return messages if roles[0] == "system" or not system else [{"role": "system", "content": system}, *messages]


def _message(turn: Any) -> Message | None:
    if not isinstance(turn, dict) or turn.get("role") not in ROLES:
        return None
    content = turn.get("content")
    if not isinstance(content, str) or not content.strip() or not _storable(content):
        return None
    return {"role": turn["role"], "content": content}


def _storable(text: str) -> bool:
    # JSON may write half of a surrogate pair, which UTF-8 cannot.
    return not any("\ud800" <= character <= "\udfff" for character in text)
