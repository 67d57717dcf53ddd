"""llama.cpp in this process, through llama-cpp-python's binding of its C interface: models, sessions, its quantizer.

Of llama-cpp-python only that binding is used: its class `Llama` keeps the logits of a whole context or of one token,
and renders and tokenises prompts in ways of its own.
"""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from luthier import InputError, PluginError
from luthier_gguf.library import INSTALL
from luthier_models.streams import CHUNK

try:
    import llama_cpp
except ImportError as error:
    raise InputError(f"llama.cpp is not installed: {error}", INSTALL) from error
except (OSError, RuntimeError) as error:
    raise InputError(
        f"llama-cpp-python is installed, and its library cannot be loaded: {error}",
        "Install it again: pip install --force-reinstall --no-cache-dir llama-cpp-python",
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CACHES = {"f16": 1, "f32": 0}  # numbers of `enum ggml_type`
_NO_FLASH_ATTENTION = 0
_ALL_LAYERS = -1
_SHORTEST = 512  # tokens that there is room for at the least
_ERROR = 3  # of `enum ggml_log_level`
_ERRORS: list[str] = []


def _listen(level: int, text: bytes, _data: Any) -> None:
    line = text.decode("utf-8", "replace").strip()
    if level == _ERROR and line:
        _ERRORS.append(line)
    logging.getLogger(__name__).debug("%s", line)


_LISTENER: Any = llama_cpp.llama_log_callback(_listen)  # kept: llama.cpp calls it as long as it is loaded
llama_cpp.llama_log_set(_LISTENER, ctypes.c_void_p(0))


class LlamaModel:
    """A GGUF file that llama.cpp has loaded.

    Attributes:
        vocabulary: tokens, and so the width of its logits.
        context: tokens that it was made for.

    Args:
        file: where it is.
        threads: of the matrix products; None for as many as there are processors.
        offload: whether layers go to a GPU.
        cache: how keys and values are kept: `f16`, as llama.cpp and its clients do, or `f32`, which loses nothing.

    Raises:
        InputError: if llama.cpp does not load it.
    """

    def __init__(
        self, file: Path, *, threads: int | None = None, offload: bool = False, cache: Literal["f16", "f32"] = "f16"
    ) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = _ALL_LAYERS if offload else 0
        _ERRORS.clear()
        self._model: Any = llama_cpp.llama_model_load_from_file(os.fsencode(file), parameters)
        if not self._model:
            raise InputError(
                f"llama.cpp does not load {file}: {_reason()}",
                "Check that the file was copied whole; export the model again, or upgrade llama-cpp-python, which "
                "knows the architectures of its time.",
            )
        self._threads = threads or os.cpu_count() or 1
        self._cache = cache
        self._rooms: list[_Room] = []
        self._beside: list[_Room] = []
        self._vocabulary: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self.context = int(llama_cpp.llama_model_n_ctx_train(self._model))
        weakref.finalize(self, _free, self._model, self._rooms, self._beside)

    def session(self, length: int) -> LlamaSession:
        """Begin a text of at most `length` tokens; the one before it ends."""
        if not self._rooms or self._rooms[0].length < length:
            # Two caches need not be in memory at once, and every text a little longer needs no new one.
            _close(self._rooms)
            length = max(_SHORTEST, 1 << (length - 1).bit_length())
            self._rooms.append(_Room(self._context(length), length, self.vocabulary))
        return LlamaSession(self._rooms[0], self)

    def session_beside(self, length: int) -> LlamaSession:
        """Begin a text of at most `length` tokens in memory of its own, while others go on; it is to be closed."""
        room = _Room(self._context(length), length, self.vocabulary)
        self._beside.append(room)
        return LlamaSession(room, self, self._beside)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text by llama.cpp's own tokenizer, with special tokens read as such and none added."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 1))()
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), ids, len(ids), False, True)
        if count < 0:
            raise PluginError(f"llama.cpp makes {-count} tokens of {len(data)} bytes", "Report this to luthier-gguf.")
        return list(ids[:count])

    def _context(self, length: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = length
        parameters.n_batch = parameters.n_ubatch = CHUNK
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.type_k = parameters.type_v = _CACHES[self._cache]
        if self._cache == "f32":
            parameters.flash_attn_type = _NO_FLASH_ATTENTION
        parameters.no_perf = True
        _ERRORS.clear()
        context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            raise InputError(
                f"llama.cpp has no room for a text of {length} tokens: {_reason()}",
                "Shorten the texts, or free memory.",
            )
        return context


class _Room:
    """What one text at a time is read in: llama.cpp's context, with the cache, and a batch of tokens."""

    def __init__(self, context: Any, length: int, vocabulary: int) -> None:
        self.context = context
        self.length = length
        self.vocabulary = vocabulary
        self.turn = 0
        self.batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)
        self.tokens, self.positions, self.flags, sequences = (
            np.ctypeslib.as_array(each, (CHUNK,))
            for each in (self.batch.token, self.batch.pos, self.batch.logits, self.batch.n_seq_id)
        )
        sequences[:] = 1
        for place in range(CHUNK):
            self.batch.seq_id[place][0] = 0

    def begin(self) -> int:
        """Forget the text that was read, and whose turn it was."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.turn += 1
        return self.turn

    def close(self) -> None:
        self.turn = -1
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)


class LlamaSession:
    """One text's way through a model, until the model begins another; see `luthier_models.one_by_one.Session`.

    Args:
        room: what it is read in.
        model: kept in memory.
        beside: where the room is listed, if it is the session's own.
    """

    def __init__(self, room: _Room, model: LlamaModel, beside: list[_Room] | None = None) -> None:
        self._room = room
        self._beside = beside
        self._model = model
        self._read = 0
        self._wanted = 0
        self._pending: int | None = None
        self._turn = room.begin()

    def read(self, ids: NDArray[np.int32], wanted: int) -> None:
        """Read the next tokens, at most `CHUNK`, and compute the logits of the last `wanted`.

        Raises:
            PluginError: if llama.cpp refuses them.
        """
        room, count = self._own_room(), len(ids)
        room.tokens[:count] = ids
        room.positions[:count] = np.arange(self._read, self._read + count)
        room.flags[: count - wanted] = 0
        room.flags[count - wanted : count] = 1
        room.batch.n_tokens = count
        _ERRORS.clear()
        if llama_cpp.llama_decode(room.context, room.batch):
            raise PluginError(
                f"llama.cpp does not read {count} tokens after {self._read}: {_reason()}",
                "Report this to luthier-gguf, with the model's name.",
            )
        self._read += count
        self._wanted = wanted

    def logits(self) -> NDArray[np.float32]:
        """Of the tokens that were wanted: (tokens, vocabulary)."""
        room = self._own_room()
        found = llama_cpp.llama_get_logits(room.context)
        # A copy: llama.cpp writes the next ones to the same memory.
        return np.ctypeslib.as_array(found, (self._wanted, room.vocabulary)).copy()

    def write(self) -> int:
        """The most likely next token. It is read when it is needed, which the last one of a text never is."""
        if self._pending is not None:
            self.read(np.array([self._pending], np.int32), 1)
        self._pending = int(self.logits()[-1].argmax())
        return self._pending

    def close(self) -> None:
        """Free the room, if it is the session's own."""
        if self._beside is not None and self._room in self._beside:
            self._beside.remove(self._room)
            self._room.close()

    def _own_room(self) -> _Room:
        if self._room.turn != self._turn:
            raise RuntimeError("the model has begun another text")
        return self._room


def _close(rooms: list[_Room]) -> None:
    while rooms:
        rooms.pop().close()


def _free(model: Any, *rooms: list[_Room]) -> None:
    # In this order: a context uses the model until it is gone.
    for each in rooms:
        _close(each)
    llama_cpp.llama_model_free(model)


def _reason() -> str:
    return _ERRORS[-1] if _ERRORS else "it gives no reason"


def offloads() -> bool:
    """Whether this llama.cpp was built for a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def quantize(source: Path, target: Path, file_type: int, threads: int | None) -> None:
    """Have llama.cpp's own quantizer write a GGUF file with fewer bits a weight.

    Args:
        source: in f32, f16 or bf16.
        target: what to write.
        file_type: which mix of types, of `gguf.LlamaFileType`.
        threads: None for as many as there are processors.

    Raises:
        PluginError: if it fails.
    """
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = threads or os.cpu_count() or 1
    _ERRORS.clear()
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), parameters):
        raise PluginError(f"llama.cpp's quantizer failed: {_reason()}", "Try another precision.")
