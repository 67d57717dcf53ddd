"""The `onnxruntime-genai` runtime: an exported model on the CPU."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai as og

from luthier import InputError
from luthier_models.one_by_one import OneByOneGenerator, threads_from_environment
from luthier_models.prompts import PromptEncoder
from luthier_onnx.adapters import ADAPTER, Adapters, adapter_file
from luthier_onnx.genai_checks import check_genai
from luthier_onnx.graphs import refused_remedy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context


class GenaiGenerator(OneByOneGenerator):
    """A genai directory loaded with onnxruntime-genai; a `luthier.Generator`.

    Args:
        directory: the model, as the exporter `genai` writes it.
        ctx: progress goes to it.
        threads: for the matrix products; by default `LUTHIER_THREADS`, else `OMP_NUM_THREADS`, else
            what ONNX Runtime finds good.

    Raises:
        InputError: if the directory cannot be loaded, may not be, or contradicts itself.
    """

    def __init__(self, directory: Path, ctx: Context | None = None, *, threads: int | None = None) -> None:
        found = check_genai(directory, read_genai_config(directory))
        encoder = PromptEncoder.from_directory(directory)
        super().__init__(encoder, context=found.context, vocabulary=found.vocabulary, ctx=ctx)
        self._model = load_model(directory, threads=threads or threads_from_environment())
        self._adapters = Adapters(self._model, found.graph)
        own = directory / ADAPTER
        self._adapter = own if own.is_file() else None

    def with_adapter(self, path: Path | None) -> GenaiGenerator:
        """The same loaded model with another adapter.

        Args:
            path: another export's directory or its adapter's file; None for the model as it was before any.

        Raises:
            InputError: if there is no adapter there; when it is first used, if it is for another model.
        """
        other = copy.copy(self)
        other._adapter = None if path is None else adapter_file(path)
        return other

    def _start(self, max_length: int) -> _GenaiSession:
        # genai counts a sequence of its maximal length as done, and reads no more; a longer one than the model's
        # context it refuses, and reads the last chunk of a text that is as long.
        session = _GenaiSession(self._model, min(max_length + 1, self._context))
        if self._adapter is not None:
            self._adapters.activate(session.generator, self._adapter)
        return session


class _GenaiSession:
    """A greedy generator whose key-value cache has room for `max_length` tokens and no more; then it is done.

    Attributes:
        generator: onnxruntime-genai's.
    """

    def __init__(self, model: Any, max_length: int) -> None:
        parameters = og.GeneratorParams(model)
        # Greedy means greedy: search settings in the model's configuration do not apply.
        parameters.set_search_options(
            batch_size=1,
            do_sample=False,
            max_length=max_length,
            min_length=0,
            no_repeat_ngram_size=0,
            num_beams=1,
            repetition_penalty=1.0,
        )
        self.generator = og.Generator(model, parameters)

    def read(self, ids: NDArray[np.int32], wanted: int) -> None:
        self.generator.append_tokens(ids)

    def logits(self) -> NDArray[np.float32]:
        # A copy: the array may be memory that the next run writes to.
        return np.array(self.generator.get_output("logits")[0], dtype=np.float32)

    def write(self) -> int:
        self.generator.generate_next_token()
        return int(self.generator.get_next_tokens()[0])

    def close(self) -> None:
        del self.generator


def read_genai_config(directory: Path) -> dict[str, Any]:
    """The settings of a genai directory.

    Raises:
        InputError: if they are missing or no JSON object.
    """
    path = directory / "genai_config.json"
    if not path.is_file():
        raise InputError(
            f"{directory} is no onnxruntime-genai model: it has no genai_config.json",
            "Export the model with `export: genai`.",
        )
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}", "Export the model again.") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} is no JSON object", "Export the model again.")
    return settings


def load_model(directory: Path, *, threads: int | None = None) -> Any:
    """Load a genai directory for the CPU; nothing on disk is changed.

    Raises:
        InputError: if ONNX Runtime refuses it.
    """
    try:
        config = og.Config(str(directory))
        config.clear_providers()
        # Errors only: of every input that an adapter may give, it would warn that it is not constant.
        options: dict[str, int] = {"log_severity_level": 3}
        if threads:
            options["intra_op_num_threads"] = threads
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        return og.Model(config)
    except RuntimeError as error:
        raise InputError(
            f"{directory} cannot be loaded by onnxruntime-genai {og.__version__}: {error}", refused_remedy(error)
        ) from error
