"""Feedback: a log of what people say of a model's answers, and a source of training data made of it.

Importing this module loads no heavy library; what it names is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier_feedback.errors import (
        Conflict,
        FeedbackError,
        InvalidFeedback,
        LogUnavailable,
        TooLarge,
        UnknownModel,
        UnknownRow,
    )
    from luthier_feedback.log import FeedbackLog, Receipt
    from luthier_feedback.posting import post
    from luthier_feedback.rows import Feedback, Kept, Row

__all__ = [
    "Conflict",
    "Feedback",
    "FeedbackError",
    "FeedbackLog",
    "InvalidFeedback",
    "Kept",
    "LogUnavailable",
    "Receipt",
    "Row",
    "TooLarge",
    "UnknownModel",
    "UnknownRow",
    "post",
]

_MODULES = {
    "errors": (
        "Conflict",
        "FeedbackError",
        "InvalidFeedback",
        "LogUnavailable",
        "TooLarge",
        "UnknownModel",
        "UnknownRow",
    ),
    "log": ("FeedbackLog", "Receipt"),
    "posting": ("post",),
    "rows": ("Feedback", "Kept", "Row"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"luthier_feedback.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
