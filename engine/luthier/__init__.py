"""Luthier takes raw text to a proven, quantized small language model; every stage is a plugin.

Importing this package loads no heavy library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from luthier.artifacts import Classifier, Dataset, Frame, Generator, Message, Model, OnnxModel, Prompt, Report, Score
from luthier.context import Context
from luthier.core_stages import Stage
from luthier.declaration import Known, Location, component
from luthier.errors import InputError, LuthierError, PluginError
from luthier.hookspecs import hookimpl, hookspec
from luthier.searchable import Search
from luthier.shared_settings import settings

if TYPE_CHECKING:
    from luthier.api import Recipe, find_model, plan, run
    from luthier.jobs import Job
    from luthier.runrecord import StepResult
    from luthier.runs import Run

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Context",
    "Dataset",
    "Frame",
    "Generator",
    "InputError",
    "Job",
    "Known",
    "Location",
    "LuthierError",
    "Message",
    "Model",
    "OnnxModel",
    "PluginError",
    "Prompt",
    "Recipe",
    "Report",
    "Run",
    "Score",
    "Search",
    "Stage",
    "StepResult",
    "component",
    "find_model",
    "hookimpl",
    "hookspec",
    "plan",
    "run",
    "settings",
]


_ENGINE = {
    "Job": "jobs",
    "Recipe": "api",
    "Run": "runs",
    "StepResult": "runrecord",
    "find_model": "api",
    "plan": "api",
    "run": "api",
}


def __getattr__(name: str) -> Any:
    # Plugins import this package in every process; only those who run recipes pay for the engine.
    if name in _ENGINE:
        return getattr(importlib.import_module(f"luthier.{_ENGINE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
