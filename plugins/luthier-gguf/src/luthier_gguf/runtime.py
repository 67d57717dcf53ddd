"""The `llama-cpp` runtime: a GGUF file by llama.cpp, one text at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from luthier import InputError
from luthier_gguf.files import find_gguf, has_tokenizer_beside, read_encoder
from luthier_gguf.llama import LlamaModel, LlamaSession, offloads
from luthier_models.one_by_one import OneByOneGenerator, threads_from_environment

if TYPE_CHECKING:
    from luthier import Context


class LlamaCppGenerator(OneByOneGenerator):
    """A GGUF file loaded with llama.cpp; a `luthier.Generator`.

    Prompts become tokens as for every other runtime: by the tokenizer's files beside the model or, where there are
    none, by the tokenizer that transformers reads from it.

    Args:
        path: the file, or a directory with it, as the exporter `gguf` writes it.
        ctx: its `device` says whether a GPU may be used; progress goes to it.
        threads: for the matrix products; by default `LUTHIER_THREADS`, else `OMP_NUM_THREADS`, else as many as there
            are processors.
        cache: how keys and values are kept: `f16`, as llama.cpp's clients do, or `f32`.

    Raises:
        InputError: if there is no such file, llama.cpp does not load it, or its tokenizer is not the model's.
    """

    def __init__(
        self,
        path: Path,
        ctx: Context | None = None,
        *,
        threads: int | None = None,
        cache: Literal["f16", "f32"] = "f16",
    ) -> None:
        file = find_gguf(path)
        encoder = read_encoder(file)
        self._model = LlamaModel(
            file,
            threads=threads or threads_from_environment(),
            offload=_offload(ctx.device if ctx else "cpu"),
            cache=cache,
        )
        # A tokenizer that transformers reads from the file itself may have a token more, which no text has.
        if has_tokenizer_beside(file) and len(encoder.tokenizer) > self._model.vocabulary:
            raise InputError(
                f"the tokenizer beside {file} has {len(encoder.tokenizer)} tokens, and the model "
                f"{self._model.vocabulary}",
                "They are of different models: export the model again.",
            )
        super().__init__(encoder, context=self._model.context, vocabulary=self._model.vocabulary, ctx=ctx)

    def _start(self, max_length: int) -> LlamaSession:
        return self._model.session(max_length)

    def _start_beside(self, max_length: int) -> LlamaSession:
        return self._model.session_beside(max_length)


def _offload(device: str) -> bool:
    """Whether layers go to a GPU.

    Raises:
        InputError: if one was asked for, and llama.cpp was built without.
    """
    if device == "cpu" or offloads():
        return device != "cpu"
    if device != "auto":
        raise InputError(
            f"the device {device!r} was asked for, and the installed llama.cpp was built for the CPU alone",
            "Run on `cpu`, or install a llama-cpp-python that was built for your GPU.",
        )
    return False
