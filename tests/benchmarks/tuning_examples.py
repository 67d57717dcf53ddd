"""What `bench_tuning.py` trains on: summaries of Debian packages, or, without apt, of docstrings."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from luthier.testing import make_context
from luthier_models.packing import Pair
from luthier_models.prompts import PromptEncoder

SEED = 0
LONGEST = 320
"""Tokens of an example. With the logits of all positions, Trainer needs 10 GB for batches of longer ones."""

EXAMPLES = 800
"""Enough that batches of all lengths are full."""

PACKAGES = ["numpy", "pydantic", "polars", "rich", "typer", "jinja2", "huggingface-hub", "datasets", "fsspec"]


def debian_pairs(encoder: PromptEncoder, directory: Path) -> list[Pair] | None:
    """Descriptions of Debian packages, to be summed up in one line; None where apt cannot fetch them."""
    if shutil.which("apt-get") is None:
        return None
    (directory / "lists" / "partial").mkdir(parents=True)
    options = ["-o", f"Dir::State::lists={directory / 'lists'}", "-o", "Acquire::Languages=en,fr"]
    done = subprocess.run(["apt-get", "update", *options], capture_output=True, text=True, check=False)
    if not list((directory / "lists").glob("*Translation-en*")):
        print(f"apt-get could not fetch the catalogues: {done.stderr.strip()}", file=sys.stderr)
        return None
    from luthier_text.sources import debian_descriptions

    context = make_context(directory / "debian", seed=SEED)
    frames = debian_descriptions(context, path=str(directory / "lists"))  # type: ignore[arg-type]
    rows = [row for frame in frames for row in frame.select("text", "summary").iter_rows()]
    random.Random(SEED).shuffle(rows)
    return _pairs(encoder, rows[:EXAMPLES], "Summarize this package description in one short line:\n\n")


def docstring_pairs(encoder: PromptEncoder, directory: Path) -> list[Pair]:
    """Docstrings of installed packages, to be summed up in one line."""
    from luthier_text.sources import docstrings

    context = make_context(directory / "docstrings", seed=SEED)
    frames = docstrings(context, packages=_installed(PACKAGES), per_package=60)
    rows = [row for frame in frames for row in frame.select("text", "summary").iter_rows()]
    return _pairs(encoder, rows, "Summarize in one line:\n")


def _pairs(encoder: PromptEncoder, rows: Sequence[tuple[str, str]], instruction: str) -> list[Pair]:
    pairs: Iterator[Pair] = (encoder.pair(instruction + text, summary) for text, summary in rows)
    return [pair for pair in pairs if sum(map(len, pair)) <= LONGEST]


def _installed(names: Sequence[str]) -> list[str]:
    """Those of the distributions that are here."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def make_batches(pairs: Sequence[Pair], count: int, size: int) -> list[list[Pair]]:
    """Batches grouped by length with transformers' own sampler, spread over all lengths; the first is short."""
    lengths = [len(given) + len(targets) for given, targets in pairs]
    generator = torch.Generator().manual_seed(SEED)
    order = list(LengthGroupedSampler(size, lengths=lengths, generator=generator))
    batches = [[pairs[i] for i in order[start : start + size]] for start in range(0, len(order) - size + 1, size)]
    stride = max(1, len(batches) // (count + 1))
    chosen = batches[::stride][: count + 1]
    # The longest, which the sampler puts first, only warm up.
    return [chosen[0][:2], *chosen[1:]]
