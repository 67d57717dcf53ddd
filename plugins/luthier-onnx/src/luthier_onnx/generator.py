"""The `onnxruntime` runtime: batches of texts through graphs that carry their states, greedily, on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier import InputError, Score
from luthier_models.one_by_one import log_probabilities, threads_from_environment
from luthier_models.prompts import PromptEncoder
from luthier_models.streams import SessionStreaming
from luthier_models.texts import TextEncoder, cut_at_stop, joined, report_progress
from luthier_onnx.readers import chunks, groups, load_reader, padded
from luthier_onnx.session import GraphSession
from luthier_onnx.settings import read_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context, Prompt
    from luthier_models.texts import Window


class GraphGenerator(SessionStreaming):
    """A directory of graphs with its tokenizer and `config.json`; a `luthier.Generator` and `Streaming`.

    Args:
        directory: the model, as the exporters `dynamo` and `optimum` write it.
        ctx: progress goes to it.
        batch_size: texts that are read or completed together.
        threads: of the operators; by default `LUTHIER_THREADS`, else `OMP_NUM_THREADS`, else what ONNX Runtime finds
            good.

    Raises:
        InputError: if a graph may not be loaded, or does not fit its interface or the model's configuration.
    """

    def __init__(
        self, directory: Path, ctx: Context | None = None, *, batch_size: int = 8, threads: int | None = None
    ) -> None:
        self.encoder = PromptEncoder.from_directory(directory)
        self._settings = read_settings(directory, self.encoder)
        self._reader = load_reader(
            directory, padding=self._settings.padding, threads=threads or threads_from_environment()
        )
        if self._settings.vocabulary != self._reader.vocabulary:
            raise InputError(
                f"{directory / 'config.json'} says that the vocabulary has {self._settings.vocabulary} tokens; the "
                f"graph gives {self._reader.vocabulary} logits",
                "They are of different models: export the model again.",
            )
        self._texts = TextEncoder(self.encoder, self._settings.context)
        self._batch_size = batch_size
        self._ctx = ctx

    def with_batches_of(self, size: int) -> GraphGenerator:
        """The same graphs, with other batches."""
        other = copy.copy(self)
        other._batch_size = size
        return other

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The greedy completion of each prompt; see `luthier.Generator`."""
        encoded = self._texts.prompts(prompts, max_new_tokens)
        texts = [""] * len(encoded)
        if max_new_tokens < 1:
            return texts
        # Similar lengths together waste the least padding; the longest first.
        order = sorted((n for n, ids in enumerate(encoded) if ids), key=lambda n: (-len(encoded[n]), n))
        done = len(texts) - len(order)
        for members in groups(order, self._batch_size):
            found = self._complete([encoded[number] for number in members], max_new_tokens, stop)
            for number, text in zip(members, found, strict=True):
                texts[number] = text
            done += len(members)
            report_progress(self._ctx, done, len(texts))
        return texts

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Score]:
        """Log-probabilities of each completion's tokens; see `luthier.Generator`."""
        windows = self._texts.windows(prompts, completions)
        pairs = [pair for windows_of_text in windows for pair in windows_of_text]
        values: list[list[float]] = [[] for _ in pairs]
        order = sorted(
            (number for number, (given, targets) in enumerate(pairs) if given and targets),
            key=lambda number: (-sum(map(len, pairs[number])), number),
        )
        done = len(pairs) - len(order)
        for members in groups(order, self._batch_size):
            for place, logits in self._target_logits([pairs[number] for number in members]):
                number = members[place]
                labels = np.asarray(pairs[number][1][len(values[number]) :][: len(logits)])
                values[number].extend(log_probabilities(logits, labels).tolist())
            done += len(members)
            report_progress(self._ctx, done, len(pairs))
        return joined(windows, [Score(tuple(each)) for each in values])

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        """The logits that predict each completion's tokens, pair by pair; see `luthier.Generator`.

        Pairs are read in their order, a batch at a time, so that memory stays bounded.
        """
        pairs = self._texts.beginnings(prompts, completions)
        for members in groups(range(len(pairs)), self._batch_size):
            group = [pairs[number] for number in members]
            usable = [place for place, (given, targets) in enumerate(group) if given and targets]
            found: dict[int, list[NDArray[np.float32]]] = {place: [] for place in range(len(group))}
            for place, logits in self._target_logits([group[place] for place in usable]):
                found[usable[place]].append(logits)
            for place in range(len(group)):
                empty = np.zeros((0, self._reader.vocabulary), np.float32)
                yield np.concatenate([empty, *found.pop(place)])

    def feeds(self, pairs: Iterable[Window], graph: str) -> Iterator[dict[str, NDArray[Any]]]:
        """What a graph is given while pairs are read, one text at a time; for calibration.

        Args:
            pairs: the ids that are given, and those that follow.
            graph: the name of its file.

        Yields:
            The values of all its inputs, at each step.
        """
        heard: list[dict[str, NDArray[Any]]] = []

        def listen(name: str, values: Mapping[str, Any]) -> None:
            if name == graph:
                # Copies: the runtime's memory may be written to by the next step.
                heard.append({key: np.array(value.numpy()) for key, value in values.items()})

        for pair in pairs:
            for each in self._reader.graphs:
                each.listener = listen
            try:
                for _ in self._target_logits([pair]):
                    pass
            finally:
                for each in self._reader.graphs:
                    each.listener = None
            yield from heard
            heard.clear()

    @property
    def context(self) -> int:
        """The tokens that the model can read and write in all, or on each side; 0 where it sets no limit."""
        return self._settings.context

    def _start_beside(self, max_length: int) -> GraphSession:
        return GraphSession(self._reader, self._settings, paired=self.encoder.encoder_decoder)

    def _target_logits(self, pairs: Sequence[Window]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The logits that predict the targets of pairs, bit by bit in order: which pair, (tokens, vocabulary)."""
        if not pairs:
            return
        given = [ids for ids, _ in pairs]
        written = [[self._settings.start] if self.encoder.encoder_decoder else ids for ids in given]
        rows = [[*first, *targets[:-1]] for first, (_, targets) in zip(written, pairs, strict=True)]
        reading = self._reader.begin(given)
        ids, mask = padded(rows, self._settings.padding, left=False)
        for columns in chunks(*ids.shape):
            logits = reading.read(ids[:, columns], mask[:, columns])
            for place, (first, row) in enumerate(zip(written, rows, strict=True)):
                start, end = max(len(first) - 1, columns.start), min(len(row), columns.stop)
                if start < end:
                    yield place, logits[place, start - columns.start : end - columns.start]

    def _complete(self, prompts: list[list[int]], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        reading = self._reader.begin(prompts)
        first = [[self._settings.start]] * len(prompts) if self.encoder.encoder_decoder else prompts
        ids, mask = padded(first, self._settings.padding, left=self._reader.pads_left)
        last = np.zeros((len(prompts), self._reader.vocabulary), np.float32)
        ends = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        for columns in chunks(*ids.shape):
            logits = reading.read(ids[:, columns], mask[:, columns])
            for row in np.flatnonzero((ends >= columns.start) & (ends < columns.stop)).tolist():
                last[row] = logits[row, ends[row] - columns.start]
        tokens: list[list[int]] = [[] for _ in prompts]
        open_rows = set(range(len(prompts)))
        while True:
            chosen = self._settings.allowed(last, tokens).argmax(axis=1)
            for row in sorted(open_rows):
                tokens[row].append(int(chosen[row]))
                if self._ends(tokens[row], stop):
                    open_rows.discard(row)
            if not open_rows or len(tokens[min(open_rows)]) >= max_new_tokens:
                break
            # Texts that have ended are read on with the others; nobody looks at what they become.
            last = reading.read(chosen[:, None], np.ones((len(prompts), 1), np.int64))[:, -1]
        return [cut_at_stop(self.encoder.decode(row), stop) for row in tokens]

    def _ends(self, tokens: list[int], stop: Sequence[str]) -> bool:
        # A model's own end is a subset of ours: what the template ends a turn with counts too.
        if tokens[-1] in self.encoder.end_tokens:
            return True
        return bool(stop) and any(mark in self.encoder.decode(tokens) for mark in stop)
