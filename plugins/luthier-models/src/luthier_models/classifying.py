"""The `transformers` runtime of classifiers: what it writes for a text is one of its labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from luthier import InputError, Score
from luthier_models.batching import batched
from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder
from luthier_models.texts import report_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context, Prompt


class TransformersClassifier:
    """A classifier loaded with transformers; a `luthier.Classifier`.

    Args:
        directory: the model.
        ctx: its `device` is where the model runs; progress goes to it, and a warning of texts that are cut.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        batch_tokens: tokens that are read together.

    Raises:
        InputError: if the model cannot be loaded, or the device is not there.
    """

    def __init__(
        self, directory: Path, ctx: Context | None = None, *, dtype: str = "auto", batch_tokens: int = 256
    ) -> None:
        self._ctx = ctx
        self._batch_tokens = batch_tokens
        self.encoder = PromptEncoder.from_directory(directory)
        self.labels: Sequence[str] = tuple(self.encoder.labels)
        self.model: Any = load_by_config(directory, device=ctx.device if ctx else "cpu", dtype=dtype)
        self._batched = batched(self.model)

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
        rows = [torch.log_softmax(torch.from_numpy(logits), 0).tolist() for logits in self._logits([*places])]
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
        found: dict[int, NDArray[np.float32]] = {}
        read = [number for number, ids in enumerate(texts) if ids]
        # The labels of the batches are not looked at.
        for members, batch in self._batched.rows([(texts[number], [0]) for number in read], self._batch_tokens):
            with torch.inference_mode():
                logits = self._batched.logits(batch).float().cpu().numpy()
            found |= zip([read[member] for member in members], logits, strict=True)
            report_progress(self._ctx, len(found), len(read))
        nothing = np.zeros(len(self.labels), np.float32)  # An empty text says nothing for a label or against it.
        return (found.get(number, nothing) for number in range(len(texts)))


def _text(prompt: Prompt) -> str:
    if not isinstance(prompt, str):
        raise InputError(
            "the model is a classifier of texts, and was given a conversation", "Give it texts, with their labels."
        )
    return prompt
