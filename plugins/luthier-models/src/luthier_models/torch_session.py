"""One text through a model of PyTorch, by itself: what is written token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TorchSession:
    """One text's way through a causal language model; see `luthier_models.one_by_one.Session`.

    Args:
        model: as transformers has it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._states: Any = None
        self._logits = torch.zeros(0, 0)

    def read(self, ids: NDArray[np.int32], wanted: int) -> None:
        """Read the next tokens."""
        row = torch.from_numpy(ids.astype("int64"))[None].to(self._model.device)
        with torch.inference_mode():
            found = self._model(input_ids=row, past_key_values=self._states, use_cache=True)
        self._states = found.past_key_values
        self._logits = found.logits[0, found.logits.shape[1] - wanted :].float().cpu()

    def logits(self) -> NDArray[np.float32]:
        """The logits at the tokens that were wanted: (tokens, vocabulary)."""
        found: NDArray[np.float32] = self._logits.numpy()
        return found

    def write(self) -> int:
        """The most likely next token, which counts as read."""
        token = self._logits[-1].argmax()
        self.read(token[None].int().numpy(), 1)
        return int(token)

    def close(self) -> None:
        """Free the states."""
        self._states = None
