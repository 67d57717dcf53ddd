"""A model that was written counts once a new process has compared it: one that runs only where it was made is none.

What compares is a module of the plugin that wrote it, `python -P -m MODULE MODEL WRITTEN RESULT …`. It writes RESULT,
JSON with `metrics`, a `problem`, empty if there is none, and perhaps a `warning`; or with why MODEL itself is
`refused`, and the remedy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import InputError, PluginError

if TYPE_CHECKING:
    from luthier import Context


def verify_written(module: str, model: Path, ctx: Context, *options: str) -> None:
    """Have a module compare the model in `ctx.output` with `model`, and record what it found and `megabytes`.

    Args:
        module: see above.
        model: what was exported or quantized.
        ctx: its `output` is emptied if there is a problem.
        options: further arguments of the module.

    Raises:
        InputError: if it is `model` that cannot be used.
        PluginError: if there is a problem, or the process does not end well; with the numbers.
    """
    record = compared(module, [str(model), str(ctx.output)], options, ctx)
    if record.get("refused"):
        _empty(ctx.output)
        raise InputError(*record["refused"])
    if not record["problem"]:
        size = sum(path.stat().st_size for path in ctx.output.rglob("*") if path.is_file())
        ctx.metric("megabytes", size / 1e6)
    for name, value in record["metrics"].items():
        ctx.metric(name, value)
    if record["problem"]:
        _empty(ctx.output)
        raise PluginError(
            f"the model that was written {record['problem']}",
            "Nothing was kept. Try another exporter or precision, and report this with the model's name.",
        )
    if record.get("warning"):
        ctx.log.warning("%s", record["warning"])


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def compared(module: str, both: Sequence[str], options: Sequence[str], ctx: Context) -> dict[str, Any]:
    """What a module finds of two models in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="luthier-") as room:
        result = Path(room) / "result.json"
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *both, str(result), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        ctx.log.debug("%s", done.stderr)
        if done.returncode:
            last = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
            return {"metrics": {}, "problem": f"does not run: its process ended with {done.returncode}: {last}"}
        return dict(json.loads(result.read_text(encoding="utf-8")))
