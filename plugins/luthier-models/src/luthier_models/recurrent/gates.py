"""How many gates the cells have. Light: sizes are reckoned without torch."""

from __future__ import annotations

GATES = {"gru": 3, "lstm": 4}
"""The matrices that each cell has for its input, and again for its state."""
