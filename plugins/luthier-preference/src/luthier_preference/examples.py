"""Preferences as tokens, rendered as everywhere else; what trl's trainers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luthier_tune.examples import random_for, rows_of_split, shorten_prompt

if TYPE_CHECKING:
    from luthier import Dataset
    from luthier_models.packing import Pair
    from luthier_models.prompts import PromptEncoder


@dataclass(frozen=True)
class Answers:
    """A prompt with its answers, as ids: of a pair first the preferred one.

    Attributes:
        given: the prompt.
        completions: the answers.
        liked: of an answer by itself, whether it was liked.
    """

    given: list[int]
    completions: tuple[list[int], ...]
    liked: bool = True

    @property
    def pairs(self) -> list[Pair]:
        """Each answer with what is given before it."""
        return [(self.given, completion) for completion in self.completions]


@dataclass
class Encoded:
    """The examples of a split.

    Attributes:
        examples: those that can be used.
        skipped: how many cannot: an answer is empty, or too long; or the two of a pair are the same.
        shortened: of those used, how many prompts lost their end.
    """

    examples: list[Answers] = field(default_factory=list)
    skipped: int = 0
    shortened: int = 0


def encode_split(
    data: Dataset, split: str, encoder: PromptEncoder, max_length: int, *, limit: int | None = None, seed: int = 0
) -> Encoded:
    """Read and encode a split of pairs, or of judgements; with `limit`, that many rows chosen by `seed`.

    Raises:
        InputError: if the dataset has no splits.
    """
    paired = data.form == "preference"
    encoded = Encoded()
    for row in rows_of_split(data, split, limit=limit, seed=seed).to_dicts():
        texts = [row["chosen"], row["rejected"]] if paired else [row["completion"]]
        example, shortened = _encode(row["prompt"], texts, encoder, max_length)
        if example is None:
            encoded.skipped += 1
            continue
        encoded.shortened += shortened
        encoded.examples.append(Answers(*example, liked=paired or row["label"]))
    return encoded


def _encode(
    prompt: str, texts: Sequence[str], encoder: PromptEncoder, max_length: int
) -> tuple[tuple[list[int], tuple[list[int], ...]] | None, bool]:
    """The ids of a prompt and its answers, None where they cannot be used; and whether the prompt was shortened."""
    if not prompt.strip() or not all(text.strip() for text in texts):
        return None, False
    completions = tuple(encoder.completion(text) for text in texts)
    if len(set(map(tuple, completions))) < len(completions):
        return None, False
    given, room = encoder.prompt(prompt), max_length - max(map(len, completions))
    shortened = len(given) > room
    if shortened:
        given = shorten_prompt(prompt, encoder, room)
    return ((given, completions) if given else None), shortened


def rows_of_pairs(examples: Sequence[Answers]) -> list[dict[str, Any]]:
    """What trl's DPOTrainer reads after its own tokenisation."""
    return [
        {"prompt_ids": each.given, "chosen_ids": each.completions[0], "rejected_ids": each.completions[1]}
        for each in examples
    ]


def rows_of_judgements(examples: Sequence[Answers], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """What trl's KTOTrainer reads after its own tokenisation, batch after batch, in an order of the seed's.

    Each row has, besides its own answer, the one of the row before it in its batch: by how much likelier these
    mismatched answers have become, KTO estimates how far the model has moved. A last batch of one row takes the
    answer of the row before; a row alone has none but its own.
    """
    order = list(range(len(examples)))
    random_for(seed, "judgements").shuffle(order)
    rows = []
    for place, number in enumerate(order):
        start = place - place % batch_size
        end = min(start + batch_size, len(order))
        other = place - 1 if place > start or end - start == 1 else end - 1
        rows.append(
            {
                "prompt_ids": examples[number].given,
                "completion_ids": examples[number].completions[0],
                "KL_completion_ids": examples[order[other]].completions[0],
                "label": examples[number].liked,
            }
        )
    return rows
