"""Quantizers side by side: how far each takes a model from what it was, and how many megabytes are left.

Each calibrates on the same tokens of the split `train`; what it gives is compared with the model on tokens of the split
`test` that none of them has seen. In the products of weights only: that a runtime rounds their inputs too is measured
by `validate: parity`. Weights are first moved by `--noise` steps of the grid that they may lie on; see `moved`.

Run: python tests/benchmarks/bench_quantizers.py DATASET [--model DIRECTORY] [--noise 0.5] [--calibration 4096]
     [--measured 4096] [--only mixed]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from bench_tuning import MODEL  # first: it sets what the libraries read of the environment
from moved import matrices, write_moved

from luthier import Dataset, Model
from luthier.locations import fetch
from luthier.testing import make_context
from luthier_models.grids import METHODS, quantize
from luthier_models.loading import load_causal_lm
from luthier_models.normalise import write_pretrained
from luthier_models.prompts import PromptEncoder
from luthier_quantize import awq, gptq, mixed
from luthier_quantize.calibration import diverged, read_windows
from luthier_quantize.options import Calibration, FourBits

CALIBRATED: dict[str, Callable[..., None]] = {
    "gptq": lambda *inputs, tokens: gptq(*inputs, integers=FourBits(calibration_tokens=tokens)),
    "awq": lambda *inputs, tokens: awq(*inputs, integers=FourBits(calibration_tokens=tokens)),
    "mixed": lambda *inputs, tokens: mixed(
        *inputs, max_megabytes=110, calibration=Calibration(calibration_tokens=tokens)
    ),
}
ROUNDED = ("rtn", "k-quant", "hqq")
SEED = 11


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a dataset of texts with splits, as a `format` step gives it")
    parser.add_argument("--model", type=Path, help="a model directory; SmolLM2-135M-Instruct if not given")
    parser.add_argument("--noise", type=float, default=0.5, help="in steps of a 4-bit grid")
    parser.add_argument("--calibration", type=int, default=4096, help="tokens")
    parser.add_argument("--measured", type=int, default=4096, help="tokens")
    parser.add_argument("--only", choices=[*ROUNDED, *CALIBRATED], nargs="+", default=[*ROUNDED, *CALIBRATED])
    options = parser.parse_args()
    data = Dataset.at(options.data, "language-modelling")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        source = options.model or directory / "pretrained"
        if options.model is None:
            write_pretrained(fetch(MODEL), source)
        model = directory / "model"
        write_moved(source, model, options.noise, SEED)
        encoder = PromptEncoder.from_directory(model)
        windows = read_windows(data, "test", encoder, tokens=options.measured, seed=0)
        reference = load_causal_lm(model, dtype="float32")
        print(f"{windows.numel()} tokens; calibrated on {options.calibration}; noise of {options.noise:g} steps")
        for name in options.only:
            if name in CALIBRATED:
                ctx = make_context(directory / name)
                CALIBRATED[name](Model.at(model, "causal-lm"), data, ctx, tokens=options.calibration)
                found, size = load_causal_lm(ctx.output, dtype="float32"), f"{ctx.metrics['megabytes'].value:6.1f} MB"
            else:
                found, size = load_causal_lm(model, dtype="float32"), "layers only"
                with torch.no_grad():
                    for weight in matrices(found):
                        weight.copy_(quantize(weight, METHODS[name], 4, 32).values())
            distance = diverged(found, reference, windows)
            print(f"{name:8} mean KL {distance.mean_kl:.4f}, top-1 {distance.top1:.3f}, {size}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
