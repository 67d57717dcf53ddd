"""Options that commands of the core and of plugins share, so that each has one name, one help text and one meaning.

A command group of `luthier_commands` annotates its parameters with them: `home: HomeOption = None`. `PluginOption`
names one-file plugins, which `luthier.plugin_files` finds; `RuntimeOption` and `SettingsOption` say what loads a model,
and with which parameters, which `runtime_parameters` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

PluginOption = Annotated[
    list[Path],
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Load a one-file plugin, besides those in plugins.d/. May be given several times.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="D", help="Where models run: auto, cpu, cuda, cuda:1, mps.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="The store's directory.  [default: LUTHIER_HOME, else ./.luthier]"),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", metavar="NAME", help="What loads a model.  [default: the one for its kind]"),
]
SettingsOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Set a parameter of the runtime. May be given several times."),
]


def runtime_parameters(settings: Sequence[str]) -> dict[str, Any]:
    """The parameters of a runtime that `--set` gave, their values read as YAML.

    Raises:
        InputError: if one is no KEY=VALUE.
    """
    from luthier.substitution import parse_override

    return dict(map(parse_override, settings))
