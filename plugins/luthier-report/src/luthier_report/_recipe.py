"""The recipe as the run's directory keeps it."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from luthier import Run
from luthier_report._lineage import configuration_of
from luthier_report._values import displayable

MODEL_KEY = "model"
HUB = "hf:"


def recipe_text(run: Run) -> str:
    """The recipe's text, displayable; empty where the file is gone."""
    path = run.path / "recipe.yaml"
    return displayable(path.read_text(encoding="utf-8", errors="backslashreplace")) if path.exists() else ""


def written_steps(run: Run) -> list[dict[str, Any]]:
    """The steps as they are written; none where the file is gone or is no YAML."""
    path = run.path / "recipe.yaml"
    try:
        recipe = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        return []
    steps = recipe.get("steps") if isinstance(recipe, dict) else None
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []


def base_model(run: Run) -> str:
    """The location of the pretrained model that the run began from; empty for a fresh one.

    The key's ingredients know which `hf:` or `wheel:` location it was. A path is only a hash there, so
    it is taken from the recipe.
    """
    step = next((step for step in run.steps if step.stage == "architecture"), None)
    if step is None:
        return ""
    identity = configuration_of(step).get(MODEL_KEY)
    if isinstance(identity, str) and not identity.startswith("sha256:"):
        return displayable(identity)
    written = [one.get(MODEL_KEY) for one in written_steps(run) if one.get("architecture")]
    return displayable(written[0]) if written and isinstance(written[0], str) else ""


def hub_id(location: str) -> str:
    """The Hugging Face repository that a location names; empty for any other location."""
    if not location.startswith(HUB):
        return ""
    return "/".join(re.split(r"[@#]", location.removeprefix(HUB))[0].split("/")[:2])
