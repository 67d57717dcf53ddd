"""The `transformers` runtime of classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from luthier_models.batching import batched
from luthier_models.labelling import Labeller
from luthier_models.loading import load_by_config
from luthier_models.prompts import PromptEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luthier import Context


class TransformersClassifier(Labeller):
    """A classifier loaded with transformers; a `luthier.Classifier`.

    Args:
        directory: the model.
        ctx: its `device` is where the model runs; progress goes to it, and a warning of texts that are cut.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        batch_tokens: tokens that are read together.

    Raises:
        InputError: if the model cannot be loaded, or the device is not there.
    """

    def __init__(
        self, directory: Path, ctx: Context | None = None, *, dtype: str = "auto", batch_tokens: int = 256
    ) -> None:
        super().__init__(PromptEncoder.from_directory(directory), ctx)
        self._batch_tokens = batch_tokens
        self.model: Any = load_by_config(directory, device=ctx.device if ctx else "cpu", dtype=dtype)
        self._batched = batched(self.model)

    def _read(self, texts: Sequence[list[int]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        # The labels of the batches are not looked at.
        for members, batch in self._batched.rows([(ids, [0]) for ids in texts], self._batch_tokens):
            with torch.inference_mode():
                logits = self._batched.logits(batch).float().cpu().numpy()
            yield from zip(members, logits, strict=True)
