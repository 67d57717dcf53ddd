"""Which examples a validator measures on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from luthier import InputError

if TYPE_CHECKING:
    from luthier import Dataset, Message, Prompt


@dataclass(frozen=True)
class Examples:
    """Examples as parallel lists, in order of their ids.

    In language modelling every prompt is empty; in classification it is the text, and the completion
    its label; in chat it is the conversation up to its last answer, which is the completion.
    """

    ids: list[str]
    prompts: list[Prompt]
    completions: list[str]

    @property
    def asked(self) -> list[str]:
        """The prompts as texts for people: of a conversation its messages, each with its role."""
        return [prompt if isinstance(prompt, str) else _as_text(prompt) for prompt in self.prompts]


def select_examples(data: Dataset, split: str, max_examples: int | None) -> Examples:
    """The examples of `split`, at most `max_examples`.

    Raises:
        InputError: if the split is empty.
    """
    frame = data.frame(split)
    if data.form == "classification":
        # Rows without a label are there to be labelled: nothing can be measured on them.
        frame = frame.drop_nulls("label").rename({"text": "prompt", "label": "completion"})
    if frame.is_empty():
        raise InputError(
            f"the data has no examples in the split {split!r}, so there is nothing to validate on",
            f"Give the `format` step a share for {split!r}, or validate on another split.",
        )
    if max_examples is not None and len(frame) > max_examples:
        chosen = choose(frame["id"].to_list(), frame["group"].to_list(), max_examples)
        frame = frame[chosen]
    frame = frame.sort("id")
    if data.form == "chat":
        talks = frame["messages"].to_list()
        return Examples(frame["id"].to_list(), [talk[:-1] for talk in talks], [talk[-1]["content"] for talk in talks])
    if data.form == "language-modelling":
        frame = frame.select("id", pl.lit("").alias("prompt"), pl.col("text").alias("completion"))
    return Examples(frame["id"].to_list(), frame["prompt"].to_list(), frame["completion"].to_list())


def _as_text(conversation: Sequence[Message]) -> str:
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in conversation)


def choose(ids: Sequence[str], groups: Sequence[str], count: int) -> list[int]:
    """The positions of `count` rows, chosen by a hash of their ids and spread over groups.

    Each group gives its first row, in order of hashes, before any gives its second. So the choice does
    not depend on the order of rows, and a new row displaces at most one of those chosen in its round.
    """
    order = sorted(range(len(ids)), key=lambda row: _digest(ids[row]))
    seen: dict[str, int] = {}
    rounds: dict[int, int] = {}
    for row in order:
        rounds[row] = seen.get(groups[row], 0)
        seen[groups[row]] = rounds[row] + 1
    # Sorting is stable: within a round the hashes decide.
    return sorted(order, key=rounds.__getitem__)[:count]


def _digest(row_id: str) -> bytes:
    return hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).digest()
