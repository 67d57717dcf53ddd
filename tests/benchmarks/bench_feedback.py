"""Rows of feedback acknowledged in a second, each flushed to the disk: SQLite and PostgreSQL, one writer and eight.

Each round measures all of them, and beside them what the disk alone does: a file to which one process appends as many
bytes and calls fsync. Ratios are taken within a round; a busy machine changes all of its figures alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from luthier_feedback import FeedbackLog, post
from luthier_feedback.testing import postgresql_programs, postgresql_server

BODY = {"prompt": "What is the capital of France?" * 4, "answer": "The capital of France is Lyon. " * 8, "vote": -1}


def fsyncs(path: Path, seconds: float) -> float:
    """How often in a second a file is appended to and flushed."""
    done = 0
    with path.open("ab", buffering=0) as file:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            file.write(b"x" * 512)
            os.fsync(file.fileno())
            done += 1
        return done / (time.perf_counter() - began)


def rows(log: FeedbackLog, writers: int, seconds: float) -> float:
    """Rows acknowledged in a second by so many threads."""
    counts = [0] * writers
    began = time.perf_counter()

    def write(writer: int) -> None:
        while time.perf_counter() - began < seconds:
            post(log, BODY)
            counts[writer] += 1

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def measure(directory: Path, urls: dict[str, str], rounds: int, seconds: float) -> dict[str, list[float]]:
    """The figures of each round, by what was measured."""
    logs = {name: FeedbackLog(url, timeout=60) for name, url in urls.items()}
    found: dict[str, list[float]] = {}
    measures: dict[str, Callable[[], float]] = {"fsync": lambda: fsyncs(directory / "appended", seconds)}
    for name, log in logs.items():
        for writers in (1, 8):
            measures[f"{name}, {writers} writer{'s' * (writers > 1)}"] = lambda log=log, writers=writers: rows(
                log, writers, seconds
            )
    for _ in range(rounds):
        for name, take in measures.items():
            found.setdefault(name, []).append(take())
    for log in logs.values():
        log.close()
    return found


def main() -> None:
    """Print the medians, and the medians of the ratios to fsync within a round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    # Beside this file and not in /tmp, which may be no disk.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path(__file__).parent) as place:
        directory = Path(place)
        urls = {"SQLite": str(directory / "feedback.db")}
        if postgresql_programs() is None:
            print("PostgreSQL is not installed, and left out")
            found = measure(directory, urls, options.rounds, options.seconds)
        else:
            with postgresql_server(durable=True) as url:
                found = measure(directory, urls | {"PostgreSQL": url}, options.rounds, options.seconds)
    for name, figures in found.items():
        ratio = statistics.median(figure / disk for figure, disk in zip(figures, found["fsync"], strict=True))
        print(f"{name:24} {statistics.median(figures):8,.0f} a second   {ratio:5.2f} of fsync")


if __name__ == "__main__":
    main()
