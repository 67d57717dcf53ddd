"""The process that executes steps: requests in, events and results out, as JSON lines.

    python -P -m luthier.worker [LOCAL_PLUGIN…]

Nothing heavy is imported before the protocol has its own copy of stdout, so that a library's print
breaks nothing. The end of the input ends this process and its children: a killed parent leaves no orphan.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from luthier.channel import Channel, end_group
from luthier.failures import failure

PROTOCOL_VERSION = 1


def _read_requests(requests: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    end_group()


def serve(local_plugins: list[Path]) -> None:
    """Answer requests until the input ends."""
    channel = Channel()
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()

    from luthier.jobs import log_to, spread
    from luthier.plugins import load_plugins
    from luthier.tasks import Tasks

    registry = load_plugins(local=local_plugins)
    tasks = Tasks(registry, channel.send, partial(spread, registry, channel.send, local_plugins))
    channel.send({"type": "ready", "version": PROTOCOL_VERSION})
    with log_to(channel.send):
        while True:
            request = requests.get()
            try:
                channel.send({"type": "result", **tasks.carry_out(request)})
            except (Exception, SystemExit) as error:
                # A component that calls sys.exit has failed like any other.
                channel.send(failure(error, registry.sources))


def main() -> None:
    """Serve until the parent closes our input. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(KeyboardInterrupt):
        serve([Path(argument) for argument in sys.argv[1:]])


if __name__ == "__main__":
    main()
