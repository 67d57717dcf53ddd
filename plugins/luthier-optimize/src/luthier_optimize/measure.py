"""A process that loads one model and takes its times; it does nothing else, so that load and memory are true.

Reads a request from its standard input, writes what it measured to its standard output, both JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import InputError, Model, OnnxModel, load_generator, load_plugins

if TYPE_CHECKING:
    from luthier import Generator, Prompt


def measure(request: dict[str, Any], room: Path) -> dict[str, float]:
    """Load the model, and complete the prompts.

    Returns:
        `load_seconds`, from the call of the runtime, whose libraries are imported then, to a loaded model;
        `first_token_ms`, the median over the prompts; `prefill`, tokens a second of the long prompt; `decode`, tokens
        a second after the first one; `peak_megabytes`, the most memory that the process had.

    Raises:
        InputError: if the model writes too little to take the time of a token.
    """
    generator, load_seconds = load(request, room)
    prompts: list[Prompt] = request["prompts"]
    new_tokens: int = request["new_tokens"]
    # What runs for the first time also makes its buffers.
    generator.generate(prompts[:1], max_new_tokens=2)
    # Whatever else the machine does can only add to a time.
    first = [min(seconds(generator, prompt, 1)[0] for _ in range(2)) for prompt in prompts]
    long_prompt: str = request["long_prompt"]
    # As a completion, since a prompt's tokens are not told; an encoder-decoder scores none without a prompt.
    (read,) = generator.score([long_prompt[:16]], [long_prompt])
    found = {
        "load_seconds": load_seconds,
        "first_token_ms": 1000 * statistics.median(first),
        "prefill": len(read.log_probabilities) / seconds(generator, long_prompt, 1)[0],
    }
    taken, written = 0.0, 0
    for prompt, beginning in zip(prompts, first, strict=True):
        whole, completion = seconds(generator, prompt, new_tokens)
        (scored,) = generator.score([prompt], [completion])
        # What is scored ends with the end of a turn, which a completion that was cut off has not.
        tokens = min(new_tokens, len(scored.log_probabilities))
        if tokens > 1 and whole > beginning:
            taken, written = taken + whole - beginning, written + tokens - 1
    if not written:
        raise InputError("it ends every completion at once, so that no token's time can be taken")
    return {**found, "decode": written / taken, "peak_megabytes": peak_bytes() / 1e6}


def load(request: dict[str, Any], room: Path) -> tuple[Generator, float]:
    """The model, loaded by the runtime that is the default for its form, and the seconds that took."""
    kinds: dict[str, type[Model | OnnxModel]] = {"model": Model, "onnx": OnnxModel}
    artifact = kinds[request["kind"]].at(Path(request["path"]), request["form"], request["hash"])
    registry = load_plugins(local=[Path(path) for path in request["plugins"]])
    runtime = registry.runtime_for(artifact.kind, artifact.form)
    began = time.perf_counter()
    generator = load_generator(runtime, artifact, room, device=request["device"])
    return generator, time.perf_counter() - began


def seconds(generator: Generator, prompt: Prompt, new_tokens: int) -> tuple[float, str]:
    """How long a completion took, and its text."""
    began = time.perf_counter()
    (completion,) = generator.generate([prompt], max_new_tokens=new_tokens)
    return time.perf_counter() - began, completion


def peak_bytes() -> int:
    """The most memory that this process had at once."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike `ru_maxrss`, which a process takes over from the one that started it.
        lines = status.read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Do what the request on the standard input asks for."""
    # A library's print must not mix with the answer.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="luthier-") as room, answer:
        try:
            found: dict[str, Any] = {"measured": measure(json.load(sys.stdin), Path(room))}
        except InputError as error:
            found = {"error": error.message}
        json.dump(found, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
