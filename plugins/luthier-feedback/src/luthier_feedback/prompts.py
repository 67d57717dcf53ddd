"""What was asked, as text and as a key: which rows are about the same prompt, and which belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from luthier_feedback.rows import Turn

Conversation = Sequence[Turn]


def as_text(prompt: Conversation) -> str:
    """The prompt as one text: of a single message its content, of several a transcript with their roles."""
    if len(prompt) == 1:
        return prompt[0].content
    return "\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in prompt)


def as_messages(prompt: Conversation, answer: str) -> str:
    """The conversation with its answer, as the JSON that the formatter `chat` reads."""
    turns = [*(turn.model_dump() for turn in prompt), {"role": "assistant", "content": answer}]
    return json.dumps(turns, ensure_ascii=False)


def key_of(prompt: Conversation) -> str:
    """The same for prompts that differ in case and blanks alone."""
    return digest(*(part for turn in prompt for part in (turn.role, _normalised(turn.content))))


def group_of(prompt: Conversation) -> str:
    """The same for all rows of a conversation: of what its user first said."""
    first = next((turn for turn in prompt if turn.role == "user"), prompt[0])
    return digest(_normalised(first.content))


def is_answerable(prompt: Conversation) -> bool:
    """Whether it ends with a user's message that is not blank."""
    return prompt[-1].role == "user" and bool(prompt[-1].content.strip())


def digest(*parts: str) -> str:
    """A short hash of texts, 24 hex digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())
