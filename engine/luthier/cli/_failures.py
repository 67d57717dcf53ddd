"""What a failed command tells the user, and its exit code.

0 done, 1 the user's error, 2 usage, 3 a plugin's or our bug, 4 a gate refused, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from luthier.errors import LuthierError
from luthier.interrupts import terminated_as_interrupt

BUG = 3
INTERRUPTED = 130
LOGS_KEPT = 20


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Turn what the block raises into messages on stderr and `typer.Exit`; SIGTERM ends it as Ctrl-C does."""
    with terminated_as_interrupt():
        try:
            yield
            # Written here, so that a closed pipe is noticed here and not while the interpreter ends.
            sys.stdout.flush()
        except LuthierError as error:
            raise typer.Exit(_explain(error)) from None
        except KeyboardInterrupt:
            typer.echo("interrupted: everything that was finished is kept", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader (`| head`) has what it wanted.
            discard_output()
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            raise typer.Exit(_report_bug(error)) from None


def discard_output() -> None:
    """Send what is still written to stdout nowhere: a closed pipe must not fail again, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: LuthierError) -> int:
    """Tell an error that we can explain: what and where, the remedy; of a plugin's bug also the traceback."""
    detail = getattr(error, "detail", "")
    if error.exit_code == BUG and detail:
        typer.echo(detail.rstrip(), err=True)
    typer.secho("error: ", err=True, fg="red", bold=True, nl=False)
    typer.echo(error.message, err=True)
    for line in error.remedy.splitlines():
        typer.echo(f"  {line}", err=True)
    if error.exit_code == BUG and detail:
        _tell_log(f"{error}\n\n{detail}")
    return error.exit_code


def _report_bug(error: Exception) -> int:
    """Tell an error that nobody foresaw: the traceback, and a log to attach to an issue."""
    import traceback

    text = "".join(traceback.format_exception(error))
    typer.echo(text.rstrip(), err=True)
    typer.secho("error: ", err=True, fg="red", bold=True, nl=False)
    typer.echo("this is a bug in Luthier or in a plugin; please report it with the log.", err=True)
    _tell_log(text)
    return BUG


def _tell_log(text: str) -> None:
    try:
        typer.echo(f"  The log: {_save_log(text)}", err=True)
    except OSError as error:
        typer.echo(f"  No log could be saved: {error}", err=True)


def _save_log(text: str) -> Path:
    """Write what a bug report needs to the user's log directory; of earlier logs the newest are kept."""
    import datetime
    import platform

    from platformdirs import user_log_path

    from luthier import __version__

    directory = user_log_path("luthier", appauthor=False)
    directory.mkdir(parents=True, exist_ok=True)
    for old in sorted(directory.glob("bug-*.log"))[: -(LOGS_KEPT - 1)]:
        old.unlink(missing_ok=True)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = directory / f"bug-{stamp}-{os.getpid()}.log"
    facts = [
        f"command: {sys.argv}",
        f"luthier: {__version__}",
        f"python: {sys.version}",
        f"platform: {platform.platform()}",
    ]
    path.write_text("\n".join([*facts, "", text, ""]), encoding="utf-8")
    return path
