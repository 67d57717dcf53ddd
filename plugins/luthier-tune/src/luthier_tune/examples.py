"""Examples as tokens: what is given, what is learnt, and what does not fit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier import InputError
from luthier_models.packing import Pair

if TYPE_CHECKING:
    from luthier import Dataset, Frame, Message
    from luthier_models.prompts import PromptEncoder


@dataclass(frozen=True)
class Examples:
    """The encoded examples of one split.

    Attributes:
        pairs: given ids and ids to learn; of a classifier's example, the number of its label.
        skipped: examples left out, because their completion is empty or longer than `max_length`, or they have no
            text or no label.
        shortened: examples whose prompt, or text, lost its end.
    """

    pairs: list[Pair]
    skipped: int
    shortened: int


def encode_split(
    data: Dataset, split: str, encoder: PromptEncoder, max_length: int, *, limit: int | None = None, seed: int = 0
) -> Examples:
    """Read and encode a split; with `limit`, that many rows chosen by `seed`.

    Raises:
        InputError: if the dataset has no splits.
    """
    frame = rows_of_split(data, split, limit=limit, seed=seed)
    if data.form == "chat":
        return encode_conversations(frame["messages"].to_list(), encoder, max_length)
    if data.form == "language-modelling":
        return encode_texts(frame["text"].to_list(), encoder, max_length)
    if data.form == "classification":
        return encode_labelled(frame["text"].to_list(), frame["label"].to_list(), encoder, max_length)
    return encode_prompts(frame["prompt"].to_list(), frame["completion"].to_list(), encoder, max_length)


def rows_of_split(data: Dataset, split: str, *, limit: int | None = None, seed: int = 0) -> Frame:
    """The rows of a split; with `limit`, that many of them chosen by `seed`.

    Raises:
        InputError: if the dataset has no splits.
    """
    columns = data.scan().collect_schema().names()
    if "split" not in columns:
        raise InputError(
            f"the dataset has no column `split` (it has {', '.join(columns)})",
            "Let a formatter divide it into train, valid and test.",
        )
    frame = data.frame(split)
    if limit is not None and len(frame) > limit:
        # Sorted, so that the order of work does not depend on the sampler.
        chosen = sorted(random_for(seed, split).sample(range(len(frame)), limit))
        frame = frame[chosen]
    return frame


def encode_prompts(
    prompts: Sequence[str | None], completions: Sequence[str | None], encoder: PromptEncoder, max_length: int
) -> Examples:
    """Encode prompts with their completions, each within `max_length` tokens."""
    pairs: list[Pair] = []
    shortened = 0
    for prompt, completion in zip(prompts, completions, strict=True):
        if not (completion or "").strip():
            continue
        given, targets = encoder.pair(prompt or "", completion or "")
        if len(given) + len(targets) > max_length and prompt:
            given = shorten_prompt(prompt, encoder, max_length - len(targets))
            shortened += 1
        if given and targets and len(given) + len(targets) <= max_length:
            pairs.append((given, targets))
    return Examples(pairs, len(prompts) - len(pairs), shortened)


def encode_labelled(
    texts: Sequence[str | None], labels: Sequence[str | None], encoder: PromptEncoder, max_length: int
) -> Examples:
    """Encode texts with the numbers of their labels; a text longer than `max_length` tokens loses its end.

    Raises:
        InputError: if the model has no such label.
    """
    numbers = {label: number for number, label in enumerate(encoder.labels)}
    unknown = sorted({label for label in labels if label} - {*numbers})
    if unknown:
        raise InputError(
            f"the model's head has no label {', '.join(map(repr, unknown[:5]))}; it has {', '.join(numbers)}",
            "Put a new head on it for this data: `tune: classification-head` before this step.",
        )
    pairs: list[Pair] = []
    shortened = 0
    for text, label in zip(texts, labels, strict=True):
        if not (text or "").strip() or not label:
            continue
        ids = encoder.document(text or "")
        if len(ids) > max_length:
            ids = encoder.document(text or "", max_length)
            shortened += 1
        pairs.append((ids, [numbers[label]]))
    return Examples(pairs, len(texts) - len(pairs), shortened)


def encode_conversations(
    conversations: Sequence[Sequence[Message]], encoder: PromptEncoder, max_length: int
) -> Examples:
    """Encode conversations: an example for each answer, given all that came before it.

    So that every answer is learnt on the tokens that serving renders before it, also with templates that show
    earlier answers in another way than the last. Of a conversation that is too long, the last answers are
    skipped; nothing in it is shortened.
    """
    pairs: list[Pair] = []
    answers = 0
    for messages in conversations:
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            answers += 1
            if not message["content"].strip():
                continue
            given, targets = encoder.pair(messages[:turn], message["content"])
            if given and targets and len(given) + len(targets) <= max_length:
                pairs.append((given, targets))
    return Examples(pairs, answers - len(pairs), 0)


def encode_texts(texts: Sequence[str | None], encoder: PromptEncoder, max_length: int) -> Examples:
    """Encode plain texts, cut into pieces of `max_length` tokens; each ends with the end token."""
    pairs: list[Pair] = []
    skipped = 0
    end = encoder.tokenizer.eos_token_id
    for text in texts:
        ids = encoder.text(text or "") if (text or "").strip() else []
        if ids and end is not None:
            ids = [*ids, int(end)]
        if len(ids) < 2:
            skipped += 1
            continue
        # A piece starts with the last token of the one before, so that every token is learnt once.
        for start in range(0, len(ids) - 1, max_length - 1):
            piece = ids[start : start + max_length]
            pairs.append((piece[:1], piece[1:]))
    return Examples(pairs, skipped, 0)


def shorten_prompt(prompt: str, encoder: PromptEncoder, length: int) -> list[int]:
    """The longest rendering of a beginning of `prompt` within `length` tokens; empty if none fits.

    The user's text is cut, not the rendering: the template's generation prompt must stay.
    """
    tokens = encoder.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    keep = len(tokens)
    while keep > 0:
        rendered = encoder.prompt(str(encoder.tokenizer.decode(tokens[:keep])))
        if len(rendered) <= length:
            return rendered
        keep -= len(rendered) - length
    return []


def batch_of_step(step: int, examples: int, batch_size: int, seed: int) -> list[int]:
    """The indices of a step's examples: each epoch has an order of its own, from the seed alone."""
    per_epoch = -(-examples // batch_size)
    epoch, batch = divmod(step, per_epoch)
    order = list(range(examples))
    random_for(seed, f"epoch {epoch}").shuffle(order)
    return order[batch * batch_size : (batch + 1) * batch_size]


def random_for(seed: int, purpose: str) -> random.Random:
    """A generator of its own for each purpose; the same in every process."""
    digest = hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311 - shuffling, not secrecy
