"""The `onnxruntime` runtime of classifiers: padded batches of texts through one graph, on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from luthier import InputError
from luthier_models.labelling import Labeller
from luthier_models.one_by_one import threads_from_environment
from luthier_models.prompts import PromptEncoder
from luthier_onnx.binding import Graph
from luthier_onnx.interface import MODEL
from luthier_onnx.readers import padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier import Context


class GraphClassifier(Labeller):
    """A directory of a classifier's graph with its tokenizer and `config.json`; a `luthier.Classifier`.

    Args:
        directory: the model, as the exporter `dynamo` writes it.
        ctx: progress goes to it, and a warning of texts that are cut.
        batch_size: texts that are read together.
        threads: of the operators; by default `LUTHIER_THREADS`, else `OMP_NUM_THREADS`, else what ONNX Runtime finds
            good.

    Raises:
        InputError: if the graph may not be loaded, or has other labels than the configuration.
    """

    def __init__(
        self, directory: Path, ctx: Context | None = None, *, batch_size: int = 8, threads: int | None = None
    ) -> None:
        super().__init__(PromptEncoder.from_directory(directory), ctx)
        self._graph = Graph(directory / MODEL, threads=threads or threads_from_environment())
        self._batch_size = batch_size
        padding = self.encoder.tokenizer.pad_token_id
        self._padding = 0 if padding is None else int(padding)
        found = self._graph.outputs["logits"].shape[-1] if "logits" in self._graph.outputs else 0
        if found != len(self.labels):
            raise InputError(
                f"{directory / 'config.json'} names {len(self.labels)} labels, and {MODEL} gives {found} logits",
                "They are of different models: export the model again.",
            )

    def with_batches_of(self, size: int) -> GraphClassifier:
        """The same graph, with other batches."""
        other = copy.copy(self)
        other._batch_size = size
        return other

    def _read(self, texts: Sequence[list[int]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        # Similar lengths together waste the least padding; the longest first.
        order = sorted(range(len(texts)), key=lambda number: (-len(texts[number]), number))
        for start in range(0, len(order), self._batch_size):
            members = order[start : start + self._batch_size]
            ids, mask = padded([texts[number] for number in members], self._padding, left=False)
            results = self._graph.run({"input_ids": ids, "attention_mask": mask})
            yield from zip(members, results["logits"].numpy().astype(np.float32, copy=False), strict=True)
