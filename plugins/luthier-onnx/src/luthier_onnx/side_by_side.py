"""A genai model's texts side by side, in plain ONNX Runtime: what other programs that batch get of its graph.

onnxruntime-genai finds padding by the token, which models exist that have in their prompts too (SmolLM2); plain ONNX
Runtime is given masks. GroupQueryAttention reads the prompts of a batch in one piece, padded at their ends, and then a
token of each: whatever lies behind a text's own tokens is overwritten. So a batch has the logits of all its tokens at
once, and of long texts they would take gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from luthier_models.one_by_one import threads_from_environment
from luthier_models.prompts import PromptEncoder
from luthier_models.texts import TextEncoder
from luthier_onnx.adapters import ADAPTER
from luthier_onnx.binding import Course, Graph
from luthier_onnx.genai_checks import check_genai
from luthier_onnx.graphs import read_graph
from luthier_onnx.interface import read_interface
from luthier_onnx.readers import groups, padded
from luthier_onnx.runtime import read_genai_config

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Prompt

LOGITS = 1_000_000_000
"""Bytes of logits that a batch may have."""


def carries_all_tokens(directory: Path) -> bool:
    """Whether keys and values of all tokens are all that a genai model's graph carries: then a batch may be padded.

    Layers with a window have caches that begin as long as it, and convolutions read what stands before a token.
    """
    graph = read_graph(check_genai(directory, read_genai_config(directory)).graph).graph
    given = {each.name for each in graph.initializer} | {"input_ids", "attention_mask", "position_ids"}
    carried = [each for each in graph.input if each.name not in given]
    return all(
        each.name.startswith("past_key_values.")
        and any(axis.dim_param == "past_sequence_length" for axis in each.type.tensor_type.shape.dim)
        for each in carried
    )


class SideBySide:
    """A genai directory whose graph `carries_all_tokens`, with its own adapter if it has one.

    Args:
        directory: the model.
        batch_size: texts that are read or completed together.

    Raises:
        InputError: if the directory cannot be loaded, may not be, or contradicts itself.
    """

    def __init__(self, directory: Path, *, batch_size: int) -> None:
        found = check_genai(directory, read_genai_config(directory))
        self._batch_size = batch_size
        self._found = found
        self.encoder = PromptEncoder.from_directory(directory)
        self._texts = TextEncoder(self.encoder, found.context)
        self._graph = Graph(found.graph, threads=threads_from_environment())
        self._states = read_interface(directory, list(self._graph.inputs)).states
        adapter = directory / ADAPTER
        self._adapter = ort.AdapterFormat.read_adapter(str(adapter)).get_parameters() if adapter.is_file() else {}

    def has_room_for(self, tokens: int) -> bool:
        """Whether the logits of a batch of so many tokens in all are not too many to be held at once."""
        return 4 * tokens * self._found.vocabulary <= LOGITS

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The logits that predict each completion's tokens, batch by batch; see `luthier.Generator`."""
        pairs = self._texts.beginnings(prompts, completions)
        for group in groups(pairs, self._batch_size):
            read, _ = self._begin([[*given, *targets[:-1]] for given, targets in group])
            for (given, targets), logits in zip(group, read, strict=True):
                first = len(given) - 1
                yield logits[first : first + len(targets)] if given else logits[:0]

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[str]:
        """The greedy completion of each prompt, batch by batch; see `luthier.Generator`."""
        encoded = self._texts.prompts(prompts, max_new_tokens)
        return [text for group in groups(encoded, self._batch_size) for text in self._complete(group, max_new_tokens)]

    def _complete(self, encoded: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        read, reading = self._begin(encoded)
        last = np.stack([logits[len(ids) - 1] for logits, ids in zip(read, encoded, strict=True)])
        written: list[list[int]] = [[] for _ in encoded]
        for _ in range(max_new_tokens):
            chosen = last.argmax(axis=1)
            for tokens, token in zip(written, chosen.tolist(), strict=True):
                # Texts that have ended are read on with the others; nobody looks at what they become.
                if not tokens or tokens[-1] not in self.encoder.end_tokens:
                    tokens.append(token)
            last = reading.read(chosen[:, None], np.ones((len(encoded), 1), np.int64))[:, -1]
        return [self.encoder.decode(tokens) if ids else "" for tokens, ids in zip(written, encoded, strict=True)]

    def _begin(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.float32], _Reading]:
        """The logits after each token of a batch's texts, (texts, tokens, vocabulary), and how it goes on."""
        reading = _Reading(self._graph, self._states, self._adapter, (len(rows), self._found.head_size))
        # A text without tokens, of which nothing is told, reads a token all the same.
        return reading.read(*padded([row or [0] for row in rows], 0, left=False)), reading


class _Reading:
    """A batch on its way through the graph.

    Args:
        graph: the graph.
        states: its carried inputs, each with the output that it is at the next step.
        adapter: values of its other inputs.
        sizes: how many texts, and the width of a head.
    """

    def __init__(self, graph: Graph, states: Any, adapter: Any, sizes: tuple[int, int]) -> None:
        batch, head_size = sizes
        self._states = states
        self._course = Course(graph, adapter)
        self._lengths = np.zeros(batch, np.int64)
        none = {name: np.zeros((batch, graph.inputs[name].shape[1], 0, head_size), np.float32) for name in states}
        self._carried = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in none.items()}

    def read(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read each text's prompt or, after that, a token of each; see `readers.Reading`."""
        positions = self._lengths[:, None] + np.arange(ids.shape[1])
        self._lengths = self._lengths + mask.sum(axis=1)
        filled = (np.arange(self._lengths.max()) < self._lengths[:, None]).astype(np.int64)
        feeds = {"input_ids": ids, "attention_mask": filled, "position_ids": positions}
        results = self._course.step(feeds, self._carried)
        self._carried = {name: results[output] for name, output in self._states.items()}
        logits: NDArray[np.float32] = results["logits"].numpy().astype(np.float32, copy=False)
        return logits
