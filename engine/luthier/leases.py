"""Leases: one process at a time works on a step, and a killed one's checkpoint is found again.

The lock is the operating system's, on a file of its own: it ends with the process that holds it, however
that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from luthier.files import REMEDY, disk_errors, remove_tree, unique_name

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class WorkDirectory:
    """Where a step works while it holds its lease.

    `output` and `notes` are new and empty for each attempt: a process that outlives its killed run cannot
    write into the next one's. `checkpoint` is the same for every attempt.
    """

    path: Path
    output: Path
    notes: Path
    checkpoint: Path

    def discard(self) -> None:
        """Remove everything, the checkpoint too: called when the step's record is written."""
        remove_tree(self.path)


class Leases:
    """The leases of a store.

    Args:
        work: where the steps' directories are.
        locks: where the lock files are, outside of what is removed.
    """

    def __init__(self, work: Path, locks: Path) -> None:
        self.work = work
        self.locks = locks

    @contextmanager
    def hold(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[WorkDirectory]:
        """Hold a step's work directory alone, until the block ends or the process dies; wait for it if need be."""
        with disk_errors(self.work, REMEDY):
            lock = self._lock(key)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait is not None:
                    on_wait()
                lock.acquire()
        try:
            with disk_errors(self.work, REMEDY):
                work = self._make(key)
            yield work
        finally:
            lock.release()

    @contextmanager
    def idle(self, key: str) -> Iterator[bool]:
        """Whether nobody holds the key's lease; if so, nobody gets it within the block."""
        lock = self._lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, key: str) -> FileLock:
        # Lock files are never removed: whoever waits on a removed one would hold a lock that nobody sees.
        return FileLock(self.locks / f"{key}.lock", poll_interval=POLL_SECONDS)

    def _make(self, key: str) -> WorkDirectory:
        path = self.work / key
        path.mkdir(exist_ok=True)
        for old in sorted(path.iterdir()):
            if old.name != "checkpoint":
                remove_tree(old)
        attempt = path / unique_name("attempt-")
        work = WorkDirectory(path, attempt / "output", attempt / "notes", path / "checkpoint")
        for directory in (work.output, work.notes, work.checkpoint):
            directory.mkdir(parents=True, exist_ok=True)
        return work
