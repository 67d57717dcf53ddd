"""Which exporters know an architecture, so that one that does not names those that do."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import transformers
from onnxruntime_genai.models import builder

from luthier_models.recurrent import CAUSAL_LMS, SEQ2SEQ_LMS

_LEAVE_OUT = "Leave out the export: the runtime `transformers` runs the model as it is."


def supported_architectures() -> list[str]:
    """The architectures that the installed builder of onnxruntime-genai dispatches on, as `config.json` names them."""
    return sorted(set(re.findall(r'architectures\[0\] == "(\w+)"', inspect.getsource(builder.create_model))))


def routes(config: Mapping[str, Any]) -> list[str]:
    """The exporters of this plugin that know the architecture of a `config.json`, the best first."""
    [name] = (config.get("architectures") or [""])[:1]
    found = []
    # The builder gives positions to layers without them.
    if name in supported_architectures() and 0 not in (config.get("no_rope_layers") or []):
        found.append("genai")
    kind = getattr(transformers, name, None)
    # What transformers calls stateful carries something else than keys and values of attention.
    if name in {*CAUSAL_LMS.values(), *SEQ2SEQ_LMS.values()} or (kind and not getattr(kind, "_is_stateful", False)):
        found.append("dynamo")
    return found


def other_routes(config: Mapping[str, Any], besides: str) -> str:
    """What to do with a model that one exporter does not know."""
    others = [name for name in routes(config) if name != besides]
    if others:
        return (
            f"Write `export: {others[0]}`, which knows it. Or leave out the export: the runtime `transformers` runs it."
        )
    if config.get("is_encoder_decoder"):
        return _LEAVE_OUT
    return (
        f"{_LEAVE_OUT} Or try `export: optimum` (luthier-optimum), which knows some architectures that no other does."
    )
