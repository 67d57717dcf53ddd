"""Options that commands of the core and of plugins share, so that each has one name, one help text and one meaning.

A command group of `luthier_commands` annotates its parameters with them: `home: HomeOption = None`. `PluginOption`
names one-file plugins, which `luthier.plugin_files` finds; `RuntimeOption` and `SettingsOption` say what loads a model,
and with which parameters, which `runtime_parameters` reads. `confirm` asks before what cannot be undone, but for
`YesOption`. `command_app` is the app of a single command.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.errors import InputError

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
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def command_app() -> typer.Typer:
    """The app of a command that is called by the name of its group alone: `@app.callback()` marks its function."""
    return typer.Typer(
        invoke_without_command=True,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        subcommand_metavar="",
        context_settings={"allow_interspersed_args": True, "help_option_names": ["-h", "--help"]},
    )


def runtime_parameters(settings: Sequence[str]) -> dict[str, Any]:
    """The parameters of a runtime that `--set` gave, their values read as YAML.

    Raises:
        InputError: if one is no KEY=VALUE.
    """
    from luthier.substitution import parse_override

    return dict(map(parse_override, settings))


def confirm(question: str, *, default: bool = False) -> None:
    """Ask on stderr whether to go on, and end the command with exit code 1 where the answer is no.

    Args:
        question: with its question mark.
        default: the answer that Enter alone gives.

    Raises:
        InputError: if nobody answers, as without a terminal; the remedy is `YesOption`'s --yes.
    """
    with asking("Without a terminal, answer beforehand: --yes"):
        agreed = typer.confirm(question, default=default, err=True)
    if not agreed:
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)


@contextmanager
def asking(remedy: str) -> Iterator[None]:
    """A context in which typer's prompts may ask: where the input ends before an answer, that is an error.

    Args:
        remedy: what to do where nobody can answer.

    Raises:
        InputError: if the input ends.
        KeyboardInterrupt: if somebody presses Ctrl-C instead.
    """
    if hasattr(signal, "siginterrupt"):
        # Once polars is loaded, the system would go on reading the answer after Ctrl-C, and Python see it only then.
        signal.siginterrupt(signal.SIGINT, True)
    try:
        yield
    except typer.Abort as abort:
        # typer has one exception for both, raised from neither.
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        typer.echo(err=True)  # The question's line has no end yet.
        raise InputError("the input ended, so nobody answers", remedy) from None
