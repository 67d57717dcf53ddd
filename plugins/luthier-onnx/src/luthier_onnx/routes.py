"""Which exporters know an architecture, so that one that does not names those that do. Light: planning asks it too."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier import InputError
from luthier_models.recurrent import CAUSAL_LMS, SEQ2SEQ_LMS

_LEAVE_OUT = "Leave out the export: the runtime `transformers` runs the model as it is."


@functools.cache
def supported_architectures() -> tuple[str, ...]:
    """The architectures that the installed builder of onnxruntime-genai dispatches on, as `config.json` names them.

    They are read off its source: importing it would import PyTorch.
    """
    package = importlib.util.find_spec("onnxruntime_genai")
    assert package is not None
    assert package.submodule_search_locations
    source = Path(package.submodule_search_locations[0]) / "models" / "builder.py"
    return tuple(sorted(set(re.findall(r'architectures\[0\] == "(\w+)"', source.read_text(encoding="utf-8")))))


def check_known(architecture: str, *, unplaced: bool, remedy: str) -> None:
    """Refuse an architecture that the builder has no code for, or wrong code.

    Args:
        architecture: as `config.json` names it.
        unplaced: whether it has layers without positions.
        remedy: what else there is.

    Raises:
        InputError: naming it.
    """
    if architecture not in supported_architectures():
        raise InputError(f"onnxruntime-genai cannot export the architecture {architecture}", remedy)
    # The builder turns the queries and keys of such layers outside of attention, in place of not at all.
    if unplaced:
        raise InputError(
            f"onnxruntime-genai cannot export layers without positions, which {architecture} has here", remedy
        )


def routes(config: Mapping[str, Any]) -> list[str]:
    """The exporters of this plugin that know the architecture of a `config.json`, the best first."""
    name = _architecture(config)
    import transformers

    found = []
    # The builder gives positions to layers without them.
    if name in supported_architectures() and 0 not in (config.get("no_rope_layers") or []):
        found.append("genai")
    kind = getattr(transformers, name, None)
    # What transformers calls stateful carries something else than keys and values of attention.
    if name in {*CAUSAL_LMS.values(), *SEQ2SEQ_LMS.values()} or (kind and not getattr(kind, "_is_stateful", False)):
        found.append("dynamo")
    return found


def _architecture(config: Mapping[str, Any]) -> str:
    return next(iter(config.get("architectures") or ()), "")


def _is_known(config: Mapping[str, Any]) -> bool:
    """Whether transformers, with luthier-models, has the architecture of a `config.json`."""
    import transformers

    name = _architecture(config)
    return name in {*CAUSAL_LMS.values(), *SEQ2SEQ_LMS.values()} or hasattr(transformers, name)


def other_routes(config: Mapping[str, Any], besides: str) -> str:
    """What to do with a model that one exporter does not know."""
    known = routes(config)
    others = [name for name in known if name != besides]
    if others:
        return (
            f"Write `export: {others[0]}`, which knows it. Or leave out the export: the runtime `transformers` runs it."
        )
    if not _is_known(config):
        return "Check `architectures` in its config.json: transformers knows no such model."
    # Keys and values of attention are all that optimum carries too.
    if besides != "dynamo" or "dynamo" not in known or config.get("is_encoder_decoder"):
        return _LEAVE_OUT
    return f"{_LEAVE_OUT} Or try `export: optimum` (luthier-optimum), which traces models in another way."
