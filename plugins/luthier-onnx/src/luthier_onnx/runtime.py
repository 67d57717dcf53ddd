"""The `onnxruntime-genai` runtime: an exported model on the CPU."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai as og

from luthier import InputError, Score
from luthier_models.prompts import PromptEncoder
from luthier_models.texts import TextEncoder, cut_at_stop, report_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context

# The graph gives the logits of every position that it is fed: 128 of a vocabulary of 50,000 take
# 25 MB, a whole context of 8,192 would take 1.6 GB.
_CHUNK = 128


class GenaiGenerator:
    """A genai directory loaded with onnxruntime-genai; a `luthier.Generator`.

    Prompts are completed one by one. Batches would have to be padded with a token that some models
    (SmolLM2) also use inside their prompts.

    Args:
        directory: the model, as the exporter `genai` writes it.
        ctx: progress goes to it.
        threads: for the matrix products; by default `LUTHIER_THREADS`, else `OMP_NUM_THREADS`, else
            what ONNX Runtime finds good.

    Raises:
        InputError: if the directory cannot be loaded.
    """

    def __init__(self, directory: Path, ctx: Context | None = None, *, threads: int | None = None) -> None:
        self._ctx = ctx
        settings = read_genai_config(directory)
        self._vocabulary = int(settings["model"]["vocab_size"])
        self.encoder = PromptEncoder.from_directory(directory)
        self._texts = TextEncoder(self.encoder, int(settings["model"]["context_length"]))
        self._model = load_model(directory, threads=threads or threads_from_environment())

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The greedy completion of each prompt; see `luthier.Generator`."""
        encoded = self._texts.prompts(prompts, max_new_tokens)
        texts = []
        for ids in encoded:
            texts.append(self._complete(ids, max_new_tokens, stop))
            report_progress(self._ctx, len(texts), len(encoded))
        return texts

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Score]:
        """Log-probabilities of each completion's tokens; see `luthier.Generator`."""
        pairs = self._texts.pairs(prompts, completions)
        scores = []
        for given, targets in pairs:
            values: list[float] = []
            for logits in self._target_logits(given, targets):
                labels = np.asarray(targets[len(values) : len(values) + len(logits)])
                values.extend(_log_probabilities(logits, labels).tolist())
            scores.append(Score(tuple(values)))
            report_progress(self._ctx, len(scores), len(pairs))
        return scores

    def logits(self, prompts: Sequence[str], completions: Sequence[str]) -> Iterable[NDArray[np.float32]]:
        """The logits that predict each completion's tokens, one pair at a time; see `luthier.Generator`."""
        for given, targets in self._texts.pairs(prompts, completions):
            parts = list(self._target_logits(given, targets))
            yield np.concatenate(parts) if parts else np.zeros((0, self._vocabulary), np.float32)

    def _start(self, max_length: int) -> Any:
        """A greedy generator whose key-value cache has room for `max_length` tokens and no more."""
        parameters = og.GeneratorParams(self._model)
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
        return og.Generator(self._model, parameters)

    def _complete(self, prompt: list[int], max_new_tokens: int, stop: Sequence[str]) -> str:
        if not prompt or max_new_tokens < 1:
            return ""
        generator = self._start(len(prompt) + max_new_tokens)
        for chunk in _chunks(prompt):
            generator.append_tokens(chunk)
        tokens: list[int] = []
        ends = self.encoder.end_tokens
        while len(tokens) < max_new_tokens:
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            # genai's own end is a subset of ours: what the template ends a turn with counts too.
            if tokens[-1] in ends or generator.is_done():
                break
            if stop and any(mark in self.encoder.decode(tokens) for mark in stop):
                break
        return cut_at_stop(self.encoder.decode(tokens), stop)

    def _target_logits(self, given: list[int], targets: list[int]) -> Iterator[NDArray[np.float32]]:
        """The logits that predict `targets`, chunk by chunk, each (tokens, vocabulary)."""
        if not given or not targets:
            return
        ids = given + targets[:-1]
        # One more than is fed: genai counts a sequence of its maximal length as done.
        generator = self._start(len(ids) + 1)
        first = len(given) - 1
        position = 0
        for chunk in _chunks(ids):
            generator.append_tokens(chunk)
            end = position + len(chunk)
            if end > first:
                # A copy: the array may be memory that the next run writes to.
                rows = np.array(generator.get_output("logits")[0], dtype=np.float32)
                yield rows[max(0, first - position) :]
            position = end


def read_genai_config(directory: Path) -> dict[str, Any]:
    """The settings of a genai directory.

    Raises:
        InputError: if they are missing or no JSON.
    """
    path = directory / "genai_config.json"
    if not path.is_file():
        raise InputError(
            f"{directory} is no onnxruntime-genai model: it has no genai_config.json",
            "Export the model with `export: genai`.",
        )
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}", "Export the model again.") from error
    return settings


def load_model(directory: Path, *, threads: int | None = None) -> Any:
    """Load a genai directory for the CPU; nothing on disk is changed.

    Raises:
        InputError: if ONNX Runtime refuses it.
    """
    try:
        config = og.Config(str(directory))
        config.clear_providers()
        if threads:
            options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
            config.overlay(json.dumps(options))
        return og.Model(config)
    except RuntimeError as error:
        raise InputError(
            f"{directory} cannot be loaded by onnxruntime-genai {og.__version__}: {error}",
            "Export the model again with the installed version.",
        ) from error


def threads_from_environment() -> int | None:
    """How many threads this process was given; None where nobody said."""
    for name in ("LUTHIER_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return None


def _chunks(ids: Sequence[int]) -> Iterator[NDArray[np.int32]]:
    for start in range(0, len(ids), _CHUNK):
        yield np.asarray(ids[start : start + _CHUNK], dtype=np.int32)


def _log_probabilities(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The natural-log probability of each row's label."""
    top = logits.max(axis=1)
    normaliser = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    difference: NDArray[np.float64] = logits[np.arange(len(labels)), labels].astype(np.float64) - normaliser
    return difference
