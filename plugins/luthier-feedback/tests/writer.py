"""A program that keeps feedback with several threads and tells each id once it was acknowledged; it is killed."""

from __future__ import annotations

import os
import sys
import threading

from luthier_feedback import FeedbackLog, post


def write(log: FeedbackLog, name: str) -> None:
    """Keep rows until the end of the process."""
    for number in range(1_000_000):
        row = f"{name}-{number}"
        post(log, {"id": row, "prompt": row, "answer": row * 20, "vote": 1})
        # One system call: what is written is written, whenever the process is killed.
        os.write(1, f"{row}\n".encode())


def main(where: str, name: str) -> None:
    """Write with four threads to one log."""
    log = FeedbackLog(where, timeout=30)
    for thread in range(4):
        threading.Thread(target=write, args=(log, f"{name}-{thread}")).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
