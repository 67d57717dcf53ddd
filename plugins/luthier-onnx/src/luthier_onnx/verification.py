"""What an exporter wrote counts once a new process has compared it with PyTorch; see `luthier_onnx.comparison`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from luthier_models.verification import judge_written, verify_written

if TYPE_CHECKING:
    from luthier import Context

_COMPARISON = "luthier_onnx.comparison"

_LONGEST_PACKED = 256
"""Tokens: rounded weights are rounded at every position, so that long texts show nothing that short ones do not."""


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
    judge_written(examine(lambda: reference, ctx.output, "genai", lossy=True, longest=_LONGEST_PACKED), ctx)
