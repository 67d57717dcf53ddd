"""What was written for onnxruntime-genai is loaded and run once before it counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from luthier import LuthierError, PluginError
from luthier_onnx.runtime import GenaiGenerator

if TYPE_CHECKING:
    from luthier import Context

_TRIAL = ("Say hello.", "Hello, and welcome.")


def report_trial(ctx: Context) -> None:
    """Try out the model in `ctx.output`, and record its size as the metric `megabytes`.

    Raises:
        PluginError: if it does not load, or gives numbers that are not finite.
    """
    try_out(ctx.output)
    ctx.metric("megabytes", sum(path.stat().st_size for path in ctx.output.rglob("*") if path.is_file()) / 1e6)


def try_out(directory: Path) -> None:
    """Load a model and score one completion with it.

    Raises:
        PluginError: if it does not load, or a log-probability is not finite.
    """
    remedy = "Quantize it in another way, or not at all, and report this to the plugin that wrote it."
    try:
        generator = GenaiGenerator(directory)
        [score] = generator.score([_TRIAL[0]], [_TRIAL[1]])
    except (LuthierError, RuntimeError) as error:
        raise PluginError(f"the model that was written does not run: {error}", remedy) from error
    if not all(map(math.isfinite, score.log_probabilities)):
        raise PluginError("the model that was written gives numbers that are not finite", remedy)
