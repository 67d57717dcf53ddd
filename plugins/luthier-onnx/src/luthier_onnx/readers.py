"""Batches of texts read by a model's graphs, a chunk of tokens at a time: one reader for each form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import onnxruntime as ort

from luthier import InputError
from luthier_onnx.binding import Course, Graph
from luthier_onnx.interface import ENCODER, GRAPHS, INTERFACE_FILE, MODEL, RECURRENT, Interface, read_interface

if TYPE_CHECKING:
    from numpy.typing import NDArray

Item = TypeVar("Item")

# A graph gives the logits of every position that it is fed: 256 of a vocabulary of 50,000 take 50 MB.
CHUNK_TOKENS = 256


class Reading(Protocol):
    """A batch of texts on its way through a model."""

    def read(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read the next tokens of each text.

        Args:
            ids: (texts, tokens).
            mask: (texts, tokens), 0 at padding.

        Returns:
            The logits after each, (texts, tokens, vocabulary); at padding they mean nothing.
        """
        ...


class Reader(Protocol):
    """A model's graphs.

    Attributes:
        vocabulary: the width of its logits.
        pads_left: where texts that are to be continued are padded.
        graphs: what it runs.
    """

    vocabulary: int
    pads_left: bool
    graphs: Sequence[Graph]

    def begin(self, given: Sequence[Sequence[int]]) -> Reading:
        """A batch before its first token; `given` are the prompts, which an encoder reads here."""
        ...


def load_reader(directory: Path, *, padding: int, threads: int | None) -> Reader:
    """The reader of a model directory.

    Args:
        directory: the model, of a form in `GRAPHS`.
        padding: the token to pad with.
        threads: for the operators.

    Raises:
        InputError: if a graph may not be loaded, or does not have the interface that the directory says.
    """
    # What the directory says comes first: its graphs follow from that.
    decoder = None if (directory / INTERFACE_FILE).is_file() else Graph(directory / MODEL, threads=threads)
    interface = read_interface(directory, list(decoder.inputs) if decoder else [])
    decoder = decoder or Graph(directory / GRAPHS[interface.form][-1], threads=threads)
    _check(decoder, interface)
    if interface.form == "encoder-decoder":
        return PairReader(Graph(directory / ENCODER, threads=threads), decoder, interface, padding)
    return (RecurrentReader if interface.carries == RECURRENT else DecoderReader)(decoder, interface)


class _Carrying:
    """A batch whose states go from step to step in ONNX Runtime's memory.

    Args:
        decoder: the graph.
        interface: which of its inputs are states.
        batch: how many texts.
        given: values of its inputs that were computed before.
    """

    def __init__(self, decoder: Graph, interface: Interface, batch: int, given: Mapping[str, Any]) -> None:
        self._states = interface.states
        fixed = {name: value for name, value in given.items() if name not in interface.states}
        self._course = Course(decoder, fixed)
        self.carried = {name: given[name] if name in given else decoder.zeros(name, batch) for name in self._states}

    def step(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Read tokens: the logits."""
        results = self._course.step(feeds, self.carried)
        self.carried = {name: results[output] for name, output in self._states.items()}
        logits: NDArray[np.float32] = results["logits"].numpy().astype(np.float32, copy=False)
        return logits


class DecoderReader:
    """A decoder that attends to the keys and values of all that it has read; a `Reader`."""

    pads_left = True

    def __init__(self, decoder: Graph, interface: Interface) -> None:
        self.vocabulary = _vocabulary(decoder)
        self._decoder, self._interface = decoder, interface
        self.graphs: Sequence[Graph] = (decoder,)

    def begin(self, given: Sequence[Sequence[int]]) -> _DecoderReading:
        """See `Reader`."""
        return _DecoderReading(_Carrying(self._decoder, self._interface, len(given), {}), len(given))


class _DecoderReading:
    def __init__(self, carrying: _Carrying, batch: int) -> None:
        self._carrying = carrying
        self._mask = np.zeros((batch, 0), np.int64)

    def read(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        self._mask = np.concatenate([self._mask, mask], axis=1)
        # Padding has the position of the token after it; nobody attends to it.
        positions = (self._mask.cumsum(axis=1) - 1).clip(min=0)[:, -ids.shape[1] :]
        return self._carrying.step({"input_ids": ids, "attention_mask": self._mask, "position_ids": positions})


class RecurrentReader:
    """Recurrent layers, whose states have the same size however much they have read; a `Reader`."""

    pads_left = False

    def __init__(self, decoder: Graph, interface: Interface) -> None:
        self.vocabulary = _vocabulary(decoder)
        self._decoder, self._interface = decoder, interface
        self.graphs: Sequence[Graph] = (decoder,)

    def begin(self, given: Sequence[Sequence[int]]) -> _RecurrentReading:
        """See `Reader`."""
        return _RecurrentReading(_Carrying(self._decoder, self._interface, len(given), {}))


class _RecurrentReading:
    def __init__(self, carrying: _Carrying) -> None:
        self._carrying = carrying

    def read(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        lengths = mask.sum(axis=1)
        before = self._carrying.carried
        # An operator that reads nothing of a text gives a state of zeros for it: it reads a token for nothing instead.
        logits = self._carrying.step({"input_ids": ids, "lengths": lengths.clip(min=1)})
        ended = lengths == 0
        if ended.any():
            self._carrying.carried = {
                name: _kept(before[name], after, ended) for name, after in self._carrying.carried.items()
            }
        return logits


def _kept(before: Any, after: Any, ended: NDArray[np.bool_]) -> Any:
    """The states, (layers, texts, width), of texts that have ended from before, of the others from after."""
    return ort.OrtValue.ortvalue_from_numpy(np.where(ended[:, None], before.numpy(), after.numpy()))


class PairReader:
    """An encoder that reads prompts whole, and a decoder that is told what it made of them; a `Reader`.

    What the decoder reads begins with its start token, which the caller gives.
    """

    pads_left = False

    def __init__(self, encoder: Graph, decoder: Graph, interface: Interface, padding: int) -> None:
        self.vocabulary = _vocabulary(decoder)
        self._encoder, self._decoder, self._interface, self._padding = encoder, decoder, interface, padding
        self.graphs: Sequence[Graph] = (encoder, decoder)
        strange = [name for name in encoder.outputs if name not in decoder.inputs]
        if strange:
            raise InputError(
                f"{encoder.path} gives {', '.join(strange)}, which {decoder.path} does not take",
                "Export the model again: its graphs do not belong together.",
            )

    def begin(self, given: Sequence[Sequence[int]]) -> _PairReading:
        """See `Reader`."""
        ids, mask = padded(given, self._padding, left=False)
        read = self._encoder.run({"input_ids": ids, "attention_mask": mask})
        read["encoder_attention_mask"] = ort.OrtValue.ortvalue_from_numpy(mask)
        return _PairReading(_Carrying(self._decoder, self._interface, len(given), read))


class _PairReading:
    def __init__(self, carrying: _Carrying) -> None:
        self._carrying = carrying

    def read(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        # Padding follows all that counts, and nothing that counts is read after it.
        return self._carrying.step({"input_ids": ids})


def padded(rows: Sequence[Sequence[int]], padding: int, *, left: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Texts of unequal length side by side, and the mask that is 0 at padding: (texts, tokens) each."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), padding, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place] = row
        mask[number, place] = 1
    return ids, mask


def groups(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """A sequence in parts of so many."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def chunks(batch: int, width: int) -> Iterator[slice]:
    """The columns of a batch of texts, so many at a time that their logits need no gigabytes."""
    size = max(1, CHUNK_TOKENS // batch)
    for start in range(0, width, size):
        yield slice(start, min(start + size, width))


def _vocabulary(decoder: Graph) -> int:
    width = decoder.outputs["logits"].shape[-1]
    if not isinstance(width, int):
        raise InputError(f"{decoder.path} does not say how wide its logits are", "Export the model again.")
    return width


def _check(graph: Graph, interface: Interface) -> None:
    absent = [name for name in ("input_ids", *interface.states) if name not in graph.inputs]
    absent += [name for name in ("logits", *interface.states.values()) if name not in graph.outputs]
    if absent or not interface.states:
        raise InputError(
            f"{graph.path} is no {interface.form} graph that carries states from token to token: it takes "
            f"{', '.join(graph.inputs)} and gives {', '.join(graph.outputs)}"
            + (f"; {', '.join(absent)} is missing" if absent else ""),
            "Export the model with `export: dynamo` or, with optimum, for text generation with past key values.",
        )
