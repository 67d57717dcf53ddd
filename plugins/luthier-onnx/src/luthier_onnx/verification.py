"""What an exporter wrote counts once a new process has compared it with PyTorch; see `luthier_onnx.comparison`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from luthier_models.verification import verify_written

if TYPE_CHECKING:
    from luthier import Context

_COMPARISON = "luthier_onnx.comparison"


def verify(model: Path, ctx: Context, form: str, *, longest: int, lossy: bool = False) -> None:
    """Compare the model in `ctx.output` with the one it was exported from, and record by how much they differ.

    Metrics: `export_mean_kl`, `export_logit_error`, `export_top1_agreement`, `export_greedy_agreement`, and
    `megabytes`.

    Args:
        model: what was exported.
        ctx: its `output` is emptied if the export fails.
        form: of what was exported.
        longest: tokens of the longest text, where the model's context is longer.
        lossy: whether its numbers were rounded on purpose: then only a gross difference fails.

    Raises:
        PluginError: if it does not run, or differs too much; with the numbers.
    """
    verify_written(_COMPARISON, model, ctx, form, f"--longest={longest}", *(["--lossy"] if lossy else []))


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
    verify_written(_COMPARISON, exported, ctx, form, "--lossy", "--graphs")
