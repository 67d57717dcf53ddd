"""The `onnxruntime` runtime: a decoder graph with its key-value cache as inputs and outputs, on the CPU.

The names are those of Hugging Face optimum's exports: `input_ids`, `attention_mask`, `position_ids`
(some graphs have none), `past_key_values.N.key` and `.value`; `logits`, `present.N.key` and `.value`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from luthier import InputError
from luthier_models.prompts import PromptEncoder
from luthier_onnx.one_by_one import OneByOneGenerator, threads_from_environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context

GRAPH = "model.onnx"
_PAST = "past_key_values."
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class DecoderGenerator(OneByOneGenerator):
    """A directory with `model.onnx`, its tokenizer and `config.json`; a `luthier.Generator`.

    Args:
        directory: the model, as optimum's `text-generation-with-past` writes it.
        ctx: progress goes to it.
        threads: as for `GenaiGenerator`.

    Raises:
        InputError: if the graph cannot be loaded, or is no decoder with a key-value cache.
    """

    def __init__(self, directory: Path, ctx: Context | None = None, *, threads: int | None = None) -> None:
        self._session = load_graph(directory / GRAPH, threads=threads or threads_from_environment())
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]
        pasts = [name for name in self._inputs if name.startswith(_PAST)]
        if not pasts or "logits" not in self._outputs:
            raise InputError(
                f"{directory / GRAPH} is no decoder with a key-value cache: it takes {', '.join(self._inputs)}",
                "Export it for text generation with past key values.",
            )
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        super().__init__(
            PromptEncoder.from_directory(directory),
            context=int(config.get("max_position_embeddings") or 0),
            vocabulary=int(config["vocab_size"]),
            ctx=ctx,
        )
        width = config.get("head_dim") or config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
        self._empty = {name: _empty_past(self._inputs[name], width) for name in pasts}

    def _start(self, max_length: int) -> _DecoderSession:
        return _DecoderSession(self._session, self._inputs, self._outputs, self._empty)


class _DecoderSession:
    """One text's key-value cache; ONNX Runtime keeps the tensors, nothing is copied between steps."""

    def __init__(self, session: Any, inputs: dict[str, Any], outputs: list[str], empty: dict[str, Any]) -> None:
        self._session = session
        self._inputs = inputs
        self._outputs = outputs
        self._past = dict(empty)
        self._length = 0
        self._last: Any = None
        self._written: list[int] = []

    def read(self, ids: NDArray[np.int32]) -> None:
        end = self._length + len(ids)
        given = {
            "input_ids": ids[None].astype(np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(self._length, end, dtype=np.int64)[None],
        }
        feeds = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in given.items() if name in self._inputs}
        found = self._session.run_with_ort_values(self._outputs, {**feeds, **self._past})
        results = dict(zip(self._outputs, found, strict=True))
        self._past = {name: results[name.replace(_PAST, "present.")] for name in self._past}
        self._last = results["logits"]
        self._length = end

    def logits(self) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = self._last.numpy()[0].astype(np.float32)
        return rows

    def write(self) -> int:
        if self._written:
            # Read only now: after the last token nothing is asked for.
            self.read(np.asarray(self._written, dtype=np.int32))
        self._written = [int(self._last.numpy()[0, -1].argmax())]
        return self._written[0]


def load_graph(path: Path, *, threads: int | None = None) -> Any:
    """Load a graph for the CPU.

    Raises:
        InputError: if there is none, or ONNX Runtime refuses it.
    """
    if not path.is_file():
        raise InputError(f"there is no {path}", "Give a directory that an exporter wrote.")
    options = ort.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime's exceptions share no base class of their own.
        raise InputError(
            f"{path} cannot be loaded by onnxruntime {ort.__version__}: {error}", "Export the model again."
        ) from error


def _empty_past(declared: Any, width_of_head: int) -> Any:
    """A cache without tokens, from the graph's declared shape: (batch, heads, tokens, width).

    Where the graph leaves the width open, the model's configuration says it.
    """
    _, heads, _, width = declared.shape
    width = width if isinstance(width, int) else width_of_head
    dtype = _DTYPES.get(declared.type)
    if not isinstance(heads, int) or not width or dtype is None:
        raise InputError(
            f"the graph's input {declared.name} has the shape {declared.shape} of {declared.type}",
            "A cache has fixed heads and width, in float32 or float16: export the model again.",
        )
    return ort.OrtValue.ortvalue_from_numpy(np.zeros((1, heads, 0, width), dtype))
