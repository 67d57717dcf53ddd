"""What every runtime of a classifier does: what it writes for a text is one of its labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from luthier import InputError, Score
from luthier_models.texts import report_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context, Prompt
    from luthier_models.prompts import PromptEncoder


class Labeller(ABC):
    """A `luthier.Classifier` over whatever gives a text's tokens logits.

    Args:
        encoder: the model's prompt encoder.
        ctx: progress goes to it, and a warning of texts that are cut.
    """

    def __init__(self, encoder: PromptEncoder, ctx: Context | None) -> None:
        self.encoder = encoder
        self.labels: Sequence[str] = tuple(encoder.labels)
        self._ctx = ctx

    @abstractmethod
    def _read(self, texts: Sequence[list[int]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The logits of texts that have tokens, in any order: which text, and (labels,)."""

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[int(logits.argmax())] for logits in self._logits(prompts)]

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Score]:
        """The log-probability of each label, one number, given its text; a text is read once, however many labels.

        Raises:
            InputError: if one is no label of the model.
        """
        numbers = self._numbers(completions)
        # Conversations are refused below; texts are told apart by themselves.
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(_text, prompts)))}
        rows = [_log_probabilities(logits) for logits in self._logits([*places])]
        return [Score((rows[places[_text(prompt)]][number],)) for prompt, number in zip(prompts, numbers, strict=True)]

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        """For each text the logits of all labels: (1, labels)."""
        self._numbers(completions)
        return (logits[None] for logits in self._logits(prompts))

    def _numbers(self, labels: Sequence[str]) -> list[int]:
        known = {label: number for number, label in enumerate(self.labels)}
        for label in labels:
            if label not in known:
                raise InputError(
                    f"the model has no label {label!r}; it has {', '.join(self.labels)}",
                    "Measure it on data of the labels that it was trained on, or give it a new head "
                    "(`tune: classification-head`) and train that.",
                )
        return [known[label] for label in labels]

    def _logits(self, prompts: Sequence[Prompt]) -> Iterator[NDArray[np.float32]]:
        """The logits of each text's labels, (labels,), in the order of the texts."""
        texts = [self.encoder.document(_text(prompt)) for prompt in prompts]
        limit = self.encoder.text_length
        long = [number for number, ids in enumerate(texts) if limit is not None and len(ids) > limit]
        for number in long:
            texts[number] = self.encoder.document(_text(prompts[number]), limit)
        if long and self._ctx is not None:
            self._ctx.log.warning(
                "%d of %d texts lose their ends: the model reads %d tokens", len(long), len(texts), limit
            )
        read = [number for number, ids in enumerate(texts) if ids]
        found: dict[int, NDArray[np.float32]] = {}
        for member, logits in self._read([texts[number] for number in read]):
            found[read[member]] = logits
            report_progress(self._ctx, len(found), len(read))
        nothing = np.zeros(len(self.labels), np.float32)  # An empty text says nothing for a label or against it.
        return (found.get(number, nothing) for number in range(len(texts)))


def _log_probabilities(logits: NDArray[np.float32]) -> list[float]:
    wide = logits.astype(np.float64) - logits.max()
    values: list[float] = (wide - np.log(np.exp(wide).sum())).tolist()
    return values


def _text(prompt: Prompt) -> str:
    if not isinstance(prompt, str):
        raise InputError(
            "the model is a classifier of texts, and was given a conversation", "Give it texts, with their labels."
        )
    return prompt
