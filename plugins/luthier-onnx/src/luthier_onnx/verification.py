"""What an exporter wrote counts once a new process has compared it with PyTorch; see `luthier_onnx.comparison`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import PluginError

if TYPE_CHECKING:
    from luthier import Context

_COMPARISON = "luthier_onnx.comparison"

_LONGEST_PACKED = 256
"""Tokens: rounded weights are rounded at every position, so that long texts show nothing that short ones do not."""


def verify(model: Path, ctx: Context, form: str, *, lossy: bool = False) -> None:
    """Compare the model in `ctx.output` with the one it was exported from, and record by how much they differ.

    Metrics: `export_mean_kl`, `export_logit_error`, `export_top1_agreement`, `export_greedy_agreement`, and
    `megabytes`.

    Args:
        model: what was exported.
        ctx: its `output` is emptied if the export fails.
        form: of what was exported.
        lossy: whether its numbers were rounded on purpose: then only a gross difference fails.

    Raises:
        PluginError: if it does not run, or differs too much; with the numbers.
    """
    _verify(model, ctx, form, ["--lossy"] if lossy else [])


def verify_quantized(exported: Path, ctx: Context, form: str) -> None:
    """Compare the model in `ctx.output` with the graphs it was made from, and record by how much they differ.

    Metrics: `mean_kl`, `logit_error`, `top1_agreement`, `greedy_agreement`, and `megabytes`.

    Args:
        exported: what was quantized.
        ctx: its `output` is emptied if the result is broken.
        form: of both.

    Raises:
        PluginError: if it does not run, or is broken: a mean KL above `comparison.GROSS_KL`.
    """
    _verify(exported, ctx, form, ["--lossy", "--graphs"])


def verify_packed(exported: Path, ctx: Context) -> None:
    """As `verify_quantized`, for onnxruntime-genai and on shorter texts: in this process, which loads no other model.

    Args:
        exported: what was quantized, as `export: genai` writes it.
        ctx: its `output` is emptied if the result is broken.

    Raises:
        InputError: if what was quantized does not run.
        PluginError: if the result does not run, or is broken: a mean KL above `comparison.GROSS_KL`.
    """
    from luthier_onnx.comparison import examine
    from luthier_onnx.runtime import GenaiGenerator

    reference = GenaiGenerator(exported)
    _record(examine(lambda: reference, ctx.output, "genai", lossy=True, longest=_LONGEST_PACKED), ctx)


def _verify(model: Path, ctx: Context, form: str, options: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="luthier-") as room:
        result = Path(room) / "result.json"
        command = [sys.executable, "-P", "-m", _COMPARISON, str(model), str(ctx.output), str(result), form]
        done = subprocess.run(
            [*command, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        ctx.log.debug("%s", done.stderr)
        last = next(iter(reversed(done.stderr.strip().splitlines())), "no message")
        record: dict[str, Any] = (
            json.loads(result.read_text(encoding="utf-8"))
            if done.returncode == 0
            else {"metrics": {}, "problem": f"does not run: its process ended with {done.returncode}: {last}"}
        )
    _record(record, ctx)


def _record(record: Mapping[str, Any], ctx: Context) -> None:
    """Record what was found as metrics, or refuse what was written; see `comparison.examine`."""
    if not record["problem"]:
        size = sum(path.stat().st_size for path in ctx.output.rglob("*") if path.is_file())
        ctx.metric("megabytes", size / 1e6)
    for name, value in record["metrics"].items():
        ctx.metric(name, value)
    if record["problem"]:
        for path in ctx.output.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise PluginError(
            f"the model that was written {record['problem']}",
            "Nothing was kept. Try another exporter or precision, and report this with the model's name.",
        )
