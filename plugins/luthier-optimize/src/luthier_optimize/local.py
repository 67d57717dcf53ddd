"""Where things are on this machine: the store, and one-file plugins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import luthier

PLUGIN_DIRECTORY = "plugins.d"


def home_of(home: Path | None) -> Path:
    """The store's directory, as `luthier.find_model` finds it."""
    chosen = home or os.environ.get("LUTHIER_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path(".luthier").absolute()


def local_plugins(named: Sequence[Path]) -> list[Path]:
    """The one-file plugins of the working directory, and those named."""
    return luthier.plugin_files(Path.cwd(), named)


def plugins_for(recipe: Path, named: Sequence[Path]) -> list[Path]:
    """What has to be named for a recipe to have the plugins of the working directory too: not what is beside it."""
    own = recipe.absolute().parent / PLUGIN_DIRECTORY
    return [path for path in local_plugins(named) if path.parent != own]
