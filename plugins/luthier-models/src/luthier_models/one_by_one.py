"""A generator that works on one text at a time, over any session that reads tokens and keeps their states.

Batches would have to be padded with a token that some models (SmolLM2) also use inside their prompts.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from luthier import Score
from luthier_models.streams import CHUNK, SessionStreaming
from luthier_models.texts import TextEncoder, cut_at_stop, joined, report_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context, Prompt
    from luthier_models.prompts import PromptEncoder


class Session(Protocol):
    """One text's way through a model; it keeps what attention needs of the tokens that it has read."""

    def read(self, ids: NDArray[np.int32], wanted: int) -> None:
        """Read the next tokens; the logits of the last `wanted` may be asked for, the others need not be known."""
        ...

    def logits(self) -> NDArray[np.float32]:
        """The logits at the tokens that were read last, at least those that were wanted: (tokens, vocabulary)."""
        ...

    def write(self) -> int:
        """The most likely next token, which counts as read."""
        ...

    def close(self) -> None:
        """Free what it holds; nothing is asked of it afterwards."""
        ...


class OneByOneGenerator(SessionStreaming):
    """A `luthier.Generator`, and `luthier.Streaming`, over sessions.

    Args:
        encoder: the model's prompt encoder.
        context: the tokens that the model can read and write in all.
        vocabulary: the width of its logits.
        ctx: progress goes to it.
    """

    def __init__(self, encoder: PromptEncoder, *, context: int, vocabulary: int, ctx: Context | None) -> None:
        self.encoder = encoder
        self._texts = TextEncoder(encoder, context)
        self._context = context
        self._vocabulary = vocabulary
        self._ctx = ctx

    @abstractmethod
    def _start(self, max_length: int) -> Session:
        """A session with room for `max_length` tokens."""

    @property
    def context(self) -> int:
        """The tokens that the model can read and write in all."""
        return self._context

    def _start_beside(self, max_length: int) -> Session:
        """A session that goes on while others do."""
        return self._start(max_length)

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The greedy completion of each prompt; see `luthier.Generator`."""
        encoded = self._texts.prompts(prompts, max_new_tokens)
        texts = []
        for ids in encoded:
            texts.append(self._complete(ids, max_new_tokens, stop))
            report_progress(self._ctx, len(texts), len(encoded))
        return texts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Score]:
        """Log-probabilities of each completion's tokens; see `luthier.Generator`."""
        windows = self._texts.windows(prompts, completions)
        pairs = [pair for windows_of_text in windows for pair in windows_of_text]
        scores = []
        for given, targets in pairs:
            values: list[float] = []
            for logits in self._target_logits(given, targets):
                labels = np.asarray(targets[len(values) : len(values) + len(logits)])
                values.extend(log_probabilities(logits, labels).tolist())
            scores.append(Score(tuple(values)))
            report_progress(self._ctx, len(scores), len(pairs))
        return joined(windows, scores)

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        """The logits that predict each completion's tokens, one pair at a time; see `luthier.Generator`."""
        for given, targets in self._texts.beginnings(prompts, completions):
            parts = list(self._target_logits(given, targets))
            yield np.concatenate(parts) if parts else np.zeros((0, self._vocabulary), np.float32)

    def _complete(self, prompt: list[int], max_new_tokens: int, stop: Sequence[str]) -> str:
        if not prompt or max_new_tokens < 1:
            return ""
        session = self._start(len(prompt) + max_new_tokens)
        for chunk in _chunks(prompt):
            session.read(chunk, 1)
        tokens: list[int] = []
        while len(tokens) < max_new_tokens:
            tokens.append(session.write())
            # A model's own end is a subset of ours: what the template ends a turn with counts too.
            if tokens[-1] in self.encoder.end_tokens:
                break
            if stop and any(mark in self.encoder.decode(tokens) for mark in stop):
                break
        return cut_at_stop(self.encoder.decode(tokens), stop)

    def _target_logits(self, given: list[int], targets: list[int]) -> Iterator[NDArray[np.float32]]:
        """The logits that predict `targets`, chunk by chunk, each (tokens, vocabulary)."""
        if not given or not targets:
            return
        ids = given + targets[:-1]
        session = self._start(len(ids))
        first = len(given) - 1
        position = 0
        for chunk in _chunks(ids):
            end = position + len(chunk)
            wanted = min(len(chunk), max(0, end - first))
            session.read(chunk, wanted)
            if wanted:
                yield session.logits()[-wanted:]
            position = end


def threads_from_environment() -> int | None:
    """How many threads this process was given; None where nobody said."""
    for name in ("LUTHIER_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return None


def _chunks(ids: Sequence[int]) -> Iterator[NDArray[np.int32]]:
    for start in range(0, len(ids), CHUNK):
        yield np.asarray(ids[start : start + CHUNK], dtype=np.int32)


def log_probabilities(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The natural-log probability of each row's label."""
    top = logits.max(axis=1)
    normaliser = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    difference: NDArray[np.float64] = logits[np.arange(len(labels)), labels].astype(np.float64) - normaliser
    return difference
