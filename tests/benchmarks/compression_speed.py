"""What decoding is held against: the bytes that a token reads, how fast they can be read, and who takes the time."""

from __future__ import annotations

import collections
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from luthier_onnx.runtime import read_genai_config

WEIGHTS = (".data", ".onnx", ".onnx_adapter", ".gguf", ".safetensors")
CACHED = 64
"""Tokens before the one that is profiled."""
RUNS = 40


def weight_bytes(directory: Path) -> int:
    """Of the graph and the weights: without the tokenizer, which GGUF files have inside."""
    return sum(path.stat().st_size for path in directory.iterdir() if path.suffix in WEIGHTS)


def bandwidth(threads: int) -> float:
    """Bytes that so many threads read in a second from arrays that no cache holds, the best of ten times."""
    parts = np.array_split(np.ones(2**26, np.int64), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(10):
            started = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - started)
    return sum(part.nbytes for part in parts) / best


def profile(directory: Path) -> tuple[float, list[tuple[str, float]]]:
    """Milliseconds that a token takes on one thread, as ONNX Runtime's profiler sees it, and those of each operator.

    Of each node the median of many runs, so that what else the machine does counts little.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = 1, 3, True
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = ort.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])
        feeds: dict[str, Any] = {"input_ids": np.array([[1]]), "attention_mask": np.ones((1, CACHED + 1), np.int64)}
        decoder = read_genai_config(directory)["model"]["decoder"]
        cache = np.zeros((1, decoder["num_key_value_heads"], CACHED, decoder["head_size"]), np.float32)
        feeds |= {given.name: cache for given in session.get_inputs() if given.name not in feeds}
        for _ in range(RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["args"]["op_name"], event["name"]].append(event["dur"])
    by_operator: dict[str, float] = collections.defaultdict(float)
    for (operator, _), durations in taken.items():
        by_operator[operator] += statistics.median(durations) / 1000
    return sum(by_operator.values()), sorted(by_operator.items(), key=lambda pair: -pair[1])
