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
from luthier.streaming import Alternative, Sampling, Stream, Streaming, Token, completed, streaming

if TYPE_CHECKING:
    from luthier.api import Recipe, find_model, find_run, plan, run
    from luthier.catalogue import Registry
    from luthier.champion_history import HistoryEntry
    from luthier.champions import Champion, find_champion, list_champions, promote, rollback
    from luthier.components import Component
    from luthier.discovery import plugin_files
    from luthier.evaluation import evaluate
    from luthier.gates import Bound, Decision, judge, parse_gate
    from luthier.jobs import Job
    from luthier.loading import load_generator
    from luthier.locations import fetch
    from luthier.plugins import load_plugins
    from luthier.process_environment import worker_environment
    from luthier.refusals import refuse
    from luthier.runrecord import StepResult
    from luthier.runs import Run

__version__ = "0.1.0"

__all__ = [
    "Alternative",
    "Bound",
    "Champion",
    "Classifier",
    "Component",
    "Context",
    "Dataset",
    "Decision",
    "Frame",
    "Generator",
    "HistoryEntry",
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
    "Registry",
    "Report",
    "Run",
    "Sampling",
    "Score",
    "Search",
    "Stage",
    "StepResult",
    "Stream",
    "Streaming",
    "Token",
    "completed",
    "component",
    "evaluate",
    "fetch",
    "find_champion",
    "find_model",
    "find_run",
    "hookimpl",
    "hookspec",
    "judge",
    "list_champions",
    "load_generator",
    "load_plugins",
    "parse_gate",
    "plan",
    "plugin_files",
    "promote",
    "refuse",
    "rollback",
    "run",
    "settings",
    "streaming",
    "worker_environment",
]


_ENGINE = {
    "Bound": "gates",
    "Champion": "champions",
    "Component": "components",
    "Decision": "gates",
    "HistoryEntry": "champion_history",
    "Job": "jobs",
    "Recipe": "api",
    "Registry": "catalogue",
    "Run": "runs",
    "StepResult": "runrecord",
    "evaluate": "evaluation",
    "fetch": "locations",
    "find_champion": "champions",
    "find_model": "api",
    "find_run": "api",
    "judge": "gates",
    "list_champions": "champions",
    "load_generator": "loading",
    "load_plugins": "plugins",
    "parse_gate": "gates",
    "plan": "api",
    "plugin_files": "discovery",
    "promote": "champions",
    "refuse": "refusals",
    "rollback": "champions",
    "run": "api",
    "worker_environment": "process_environment",
}


def __getattr__(name: str) -> Any:
    # Plugins import this package in every process; only those who run recipes pay for the engine.
    if name in _ENGINE:
        return getattr(importlib.import_module(f"luthier.{_ENGINE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
