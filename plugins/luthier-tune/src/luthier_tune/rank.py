"""One of the processes of a job on this machine.

    python -P -m luthier_tune.rank

A request, one JSON line, says which; what it sends are JSON lines. The end of the input ends it, so that none
outlives the one that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from luthier import Job


def main() -> None:
    """Take part in the job that the first line of the input tells."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it to handle.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # A library's print breaks nothing.
    lock = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        with lock:
            out.write(json.dumps(message) + "\n")
            out.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    job, rank = Job(**request["job"]), request["rank"]

    def join() -> None:
        from torch import distributed

        from luthier_tune.processes import backend

        distributed.init_process_group(
            backend(job.device), init_method=request["meet"], rank=rank, world_size=job.processes
        )

    job.do(rank, send, join)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
