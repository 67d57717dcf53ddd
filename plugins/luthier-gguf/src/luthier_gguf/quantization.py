"""The quantizer `k-quants`: llama.cpp's own, on a GGUF file that nothing was rounded for."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from gguf import GGUFReader, LlamaFileType

from luthier import InputError, LuthierError, PluginError
from luthier_gguf.files import find_gguf
from luthier_gguf.llama import quantize
from luthier_gguf.runtime import LlamaCppGenerator
from luthier_models.one_by_one import threads_from_environment

if TYPE_CHECKING:
    from luthier import Context

_UNROUNDED = (LlamaFileType.ALL_F32, LlamaFileType.MOSTLY_F16, LlamaFileType.MOSTLY_BF16)
_TRIAL = ("Say hello.", "Hello, and welcome.")


def write_k_quants(exported: Path, ctx: Context, precision: str) -> None:
    """Quantize the GGUF file in `exported` to `ctx.output`, beside a copy of all else, and run the result once.

    Metrics: `megabytes`, of all files. Table `types`: how many tensors each type of numbers got, and their size.

    Raises:
        InputError: if there is no such file, or it is quantized already.
        PluginError: if the quantizer fails, or what it wrote does not run.
    """
    file = find_gguf(exported)
    _check_unrounded(file)
    for other in sorted(exported.iterdir()) if exported.is_dir() else ():
        if other != file:
            shutil.copy(other, ctx.output / other.name)
    target = ctx.output / file.name
    quantize(file, target, LlamaFileType[f"MOSTLY_{precision.upper()}"], threads_from_environment())
    _try_out(target)
    ctx.table("types", _types(target))
    ctx.metric("megabytes", sum(path.stat().st_size for path in ctx.output.iterdir()) / 1e6)


def _check_unrounded(file: Path) -> None:
    field = GGUFReader(file).get_field("general.file_type")
    kind = LlamaFileType(int(field.contents())) if field is not None else LlamaFileType.ALL_F32
    if kind not in _UNROUNDED:
        raise InputError(
            f"{file.name} is quantized already, as {kind.name.removeprefix('MOSTLY_').lower()}: it would be rounded "
            "twice",
            "Export it with `precision: f32`, `f16` or `bf16` for this step.",
        )


def _try_out(file: Path) -> None:
    try:
        [score] = LlamaCppGenerator(file).score([_TRIAL[0]], [_TRIAL[1]])
    except LuthierError as error:
        raise PluginError(f"the model that was written does not run: {error}", "Try another precision.") from error
    if not all(map(math.isfinite, score.log_probabilities)):
        raise PluginError("the model that was written gives numbers that are not finite", "Try another precision.")


def _types(file: Path) -> pl.DataFrame:
    sizes: dict[str, list[int]] = defaultdict(list)
    for tensor in GGUFReader(file).tensors:
        sizes[tensor.tensor_type.name.lower()].append(int(tensor.n_bytes))
    rows = [{"type": name, "tensors": len(each), "megabytes": sum(each) / 1e6} for name, each in sizes.items()]
    return pl.DataFrame(rows).sort("megabytes", descending=True)
