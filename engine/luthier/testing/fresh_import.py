"""Import one plugin in a fresh process and say what that loaded and did.

    python -P -m luthier.testing.fresh_import NAME_OR_FILE

Prints one JSON object: `heavy` (the heavy libraries that are loaded now), `modules` (how many more than
before), `cpu_seconds` (of the import and of the registration hooks), `error` (empty if it worked).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.testing import guard

HEAVY = (
    "accelerate",
    "datasets",
    "jax",
    "matplotlib",
    "mlflow",
    "nltk",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime_genai",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "ray",
    "scipy",
    "sklearn",
    "spacy",
    "tensorflow",
    "tokenizers",
    "torch",
    "transformers",
)
"""Libraries that the control plane must not pay for because a plugin is installed."""


def import_fresh(plugin: str | Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Import a plugin (an entry point's name, or a file) in a process of its own; what this module prints.

    Raises:
        RuntimeError: if the process gave no answer, with what it wrote to stderr.
    """
    command = [sys.executable, "-P", "-m", "luthier.testing.fresh_import", str(plugin)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise RuntimeError(f"importing {plugin} ended the process with status {done.returncode}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _measure(plugin: str) -> dict[str, Any]:
    from luthier.plugins import load_plugins

    file = Path(plugin) if plugin.endswith(".py") else None
    name = file.stem if file else plugin
    before, began = set(sys.modules), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        registry = load_plugins(local=[file] if file else [], environ={"LUTHIER_PLUGINS": name})
    seconds = time.process_time() - began
    return {
        "heavy": sorted(name for name in HEAVY if name in sys.modules and name not in before),
        "modules": len(set(sys.modules) - before),
        "cpu_seconds": round(seconds, 4),
        "error": "; ".join(broken.error for broken in registry.broken),
    }


if __name__ == "__main__":
    guard.install_from_environment()
    print(json.dumps(_measure(sys.argv[1])))
