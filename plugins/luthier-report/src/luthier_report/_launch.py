"""Render in a process of its own, and say clearly why where it fails."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from luthier import PluginError

TIMEOUT = 300.0
"""Seconds after which rendering counts as hung; a usual run's report takes about one."""


def render_in_process(directory: Path) -> None:
    """Run `python -m luthier_report` on a run's directory.

    Raises:
        PluginError: if it fails; the whole of its output is then in the run's `logs/report.log`.
    """
    command = [sys.executable, "-P", "-m", "luthier_report", str(directory)]
    again = f"Try again: {sys.executable} -m luthier_report {directory}"
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PluginError(f"the report of {directory.name} was not rendered within {TIMEOUT:.0f} s", again) from None
    except OSError as error:
        raise PluginError(f"the report of {directory.name} was not rendered: {error}", again) from error
    if result.returncode:
        log = _keep(directory, result.stderr)
        raise PluginError(f"the report of {directory.name} was not rendered: {_reason(result)}", again + log)


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    # Of an expected error the first line says what; of a traceback the last one does.
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    if not lines:
        return f"its process ended with {result.returncode}"
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def _keep(directory: Path, output: str) -> str:
    log = directory / "logs" / "report.log"
    with contextlib.suppress(OSError):  # On a full disk the reason alone must do.
        log.parent.mkdir(exist_ok=True)
        log.write_text(output, encoding="utf-8")
        return f" (its output is in {log})"
    return ""
