"""The exporter `optimum`: runs in the plugin's own environment, beside transformers 4."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from optimum.exporters.onnx import main_export  # type: ignore[import-not-found]

from luthier import InputError, PluginError
from luthier_optimum.families import MODEL_TYPES, unknown
from luthier_optimum.legacy import as_transformers_4

if TYPE_CHECKING:
    from luthier import Context

TASK = "text-generation-with-past"
_COMPARISON = "luthier_onnx.comparison"
_MAIN = "LUTHIER_PYTHON"
"""What the engine tells its workers: the main environment's interpreter."""

_ASK_ROUTES = """
import json, sys
from pathlib import Path
from luthier_onnx.routes import other_routes

print(other_routes(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), "optimum"))
"""


def export_decoder(model: Path, ctx: Context, opset: int | None, verified_tokens: int) -> None:
    """Write the model in `model` to `ctx.output` as one ONNX graph, and compare it with PyTorch.

    What lies beside the graph is the model's own configuration, tokenizer and template, as every other
    step reads them, not optimum's.

    Raises:
        InputError: if optimum does not know the architecture, or luthier-onnx is not in the main environment.
        PluginError: if the graph does not run, or computes something else.
    """
    python = os.environ.get(_MAIN, sys.executable)
    _check_comparison(python)
    _check_known(model, python)
    ctx.progress(0, 2)
    with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
        legacy, written = as_transformers_4(model, Path(scratch) / "model"), Path(scratch) / "onnx"
        _export(legacy, written, opset, model, python)
        for file in sorted(written.iterdir()):
            if ".onnx" in file.name:
                shutil.move(file, ctx.output / file.name)
    for file in sorted(model.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith(".safetensors.index.json"):
            shutil.copyfile(file, ctx.output / file.name)
    ctx.progress(1, 2)
    _verify(model, ctx, python, verified_tokens)
    size = sum(path.stat().st_size for path in ctx.output.iterdir()) / 1e6
    ctx.metric("megabytes", size)
    ctx.progress(2, 2, megabytes=size)


def _export(legacy: Path, output: Path, opset: int | None, model: Path, python: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about code that is not ours
        try:
            main_export(str(legacy), output=output, task=TASK, opset=opset, do_validation=False, local_files_only=True)
        except (ValueError, KeyError) as error:
            first = next(iter(str(error).splitlines()), "")
            raise InputError(f"optimum cannot export this model: {first}", _other_routes(model, python)) from error


def _check_known(model: Path, python: str) -> None:
    try:
        model_type = json.loads((model / "config.json").read_text(encoding="utf-8"))["model_type"]
        known = model_type in MODEL_TYPES
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{model / 'config.json'} does not say what the model is: {error!r}",
            "Restore the file from where the model came.",
        ) from error
    if not known:
        raise unknown(model_type, _other_routes(model, python))


def _other_routes(model: Path, python: str) -> str:
    """What to do instead, as luthier-onnx says it; it is asked in the main environment, where it is."""
    command = [python, "-P", "-c", _ASK_ROUTES, str(model / "config.json")]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()


def _check_comparison(python: str) -> None:
    """Know before the work that what was exported can be compared: luthier-onnx is in the main environment."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('luthier_onnx') is None)"
    if subprocess.run([python, "-P", "-c", code], check=False).returncode:
        raise InputError(
            "luthier-onnx, which compares what optimum exports with PyTorch and runs it, is not installed",
            "pip install luthier-onnx",
        )


def _verify(model: Path, ctx: Context, python: str, longest: int) -> None:
    """Compare with the model as transformers 5 reads it, in the main environment: what version 4 misread shows."""
    with tempfile.TemporaryDirectory(prefix="luthier-") as room:
        result = Path(room) / "result.json"
        both = [str(model), str(ctx.output), str(result), "decoder"]
        command = [python, "-P", "-m", _COMPARISON, *both, f"--longest={longest}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if not result.is_file():
            raise PluginError("the comparison with PyTorch ended without a result", "See the log of the step.")
        found = json.loads(result.read_text(encoding="utf-8"))
    for name, value in found["metrics"].items():
        ctx.metric(name, value)
    if not found["problem"] and "refused" not in found:
        return
    for path in ctx.output.iterdir():
        path.unlink()
    if "refused" in found:
        raise InputError(*found["refused"])
    raise PluginError(
        f"the exported model {found['problem']}",
        "Nothing was kept. Try `export: genai` or `export: dynamo`, and report this with the model's name.",
    )
