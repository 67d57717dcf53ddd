"""The process that has one model in memory: requests in, tokens out, as JSON lines.

    python -P -m luthier_serve.model_process

The first line says which model; what follows begins and cancels completions. The end of the input ends the process.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import LuthierError, Model, OnnxModel, load_generator, load_plugins, streaming
from luthier.channel import Channel, end_group
from luthier_serve.scheduler import Scheduler

if TYPE_CHECKING:
    from luthier import Streaming

KINDS: dict[str, type[Model | OnnxModel]] = {"model": Model, "onnx": OnnxModel}


def load(request: dict[str, Any], room: Path) -> Streaming:
    """The model, loaded by the runtime that was asked for or is the default for its form.

    Raises:
        InputError: if the runtime cannot stream, or does not load it.
        ConfigurationError: if it has no such parameters.
    """
    artifact = KINDS[request["kind"]].at(Path(request["path"]), request["form"], request["hash"])
    registry = load_plugins(local=[Path(path) for path in request["plugins"]])
    runtime = registry.runtime_for(artifact.kind, artifact.form, request["runtime"])
    registry.check_streams(runtime)
    generator = load_generator(runtime, artifact, room, parameters=request["parameters"], device=request["device"])
    return streaming(generator, runtime.name)


def warm(model: Streaming) -> None:
    """Write a token: what runs for the first time also makes its buffers, and a damaged model shows itself."""
    stream = model.open("a", max_new_tokens=1)
    try:
        while stream.read():
            pass
        stream.step()
    finally:
        stream.close()


def main() -> None:
    """Answer until the input ends. Ctrl-C is the server's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel()
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="luthier-") as room:
        try:
            model = load(requests.get(), Path(room))
            warm(model)
        except LuthierError as error:
            channel.send({"type": "refused", "message": error.message, "remedy": error.remedy})
            return
        channel.send({"type": "ready"})
        scheduler = Scheduler(model, channel.send)
        while True:
            # Between two steps every message is heard, so that what is cancelled ends within a token.
            while scheduler.idle or not requests.empty():
                scheduler.take(requests.get())
            scheduler.step()


def _read(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    end_group()


if __name__ == "__main__":
    main()
