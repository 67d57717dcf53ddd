"""Garbage collection of the store: what no run and no champion refers to goes, after a grace period.

Runs are the roots. A run's `run.json` names its steps, `{"steps": [{"nodes": [{"key": …}, …]}, …], "started": …}`,
and of a step that was searched its trials, `{"search": {"trials": [{"key": …}, …]}}`; a step's record names its
artifacts. What the registry names stays besides: the models of champions, and of the runs that made them the record
and the reports, but not their data. Age protects what a running process has not yet referred to: reading a record
and storing an artifact that is there already both make it young again. Leases protect the rest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from luthier.files import REMEDY, disk_errors, measure, remove_tree, unique_name
from luthier.registry import Champions

if TYPE_CHECKING:
    from luthier.store import Store


@dataclass(frozen=True)
class Collected:
    """What a garbage collection removed, or would remove. `bytes` counts only what no other link keeps."""

    objects: int = 0
    steps: int = 0
    runs: int = 0
    work: int = 0
    leftovers: int = 0
    bytes: int = 0


def collect(
    store: Store,
    *,
    keep_runs: int | None = None,
    grace_seconds: float = 3600,
    dry_run: bool = False,
) -> Collected:
    """Remove what no run needs.

    Args:
        store: the store.
        keep_runs: how many of the newest runs to keep (by `started`, then by name), and as many of the newest runs
            that only evaluated a champion, which push out none of the others; None keeps all.
        grace_seconds: nothing younger is removed.
        dry_run: only count.
    """
    if not store.root.is_dir():
        return Collected()
    sweep = _Sweep(store, time.time() - grace_seconds, dry_run)
    store.prepare()
    with disk_errors(store.root, REMEDY):
        return sweep.collect(keep_runs)


@dataclass
class _Sweep:
    store: Store
    before: float
    dry_run: bool
    freed: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)

    def collect(self, keep_runs: int | None) -> Collected:
        store = self.store
        runs = _runs(store.runs)
        old = [] if keep_runs is None else _older(runs, keep_runs)
        held = Champions(store).held()
        spared = [run for run in old if run.name in held.runs]
        gone = [run for run in old if run not in spared and not _is_held(run) and self._remove(run)]
        keys = {key for run, record in runs.items() if run not in (*gone, *spared) for key in _keys(record)}
        steps = [path for path in _entries(store.steps_directory) if path.stem not in keys and self._remove_step(path)]
        live = {
            artifact
            for record in store.steps()
            if not (self.dry_run and store.steps_directory / f"{record.key}.json" in steps)
            for artifact in (record.output, record.report)
        }
        live |= held.artifacts.union(*(_reports(runs[run]) for run in spared))
        objects = [path for path in _entries(store.objects_directory) if path.name not in live and self._remove(path)]
        work = [path for path in _entries(store.work) if self._is_done(path.name, keys) and self._remove_work(path)]
        orphans = [path for path in _entries(store.generations) if not (store.objects_directory / path.name).exists()]
        rest = [*orphans, *_entries(store.quarantine), *_entries(store.tmp)]
        leftovers = [path for path in rest if self._remove(path)]
        return Collected(len(objects), len(steps), len(gone), len(work), len(leftovers), self.freed)

    def _is_done(self, key: str, keys: Collection[str]) -> bool:
        """Whether a step's work directory is of no more use: no run wants it, or its result is there."""
        return key not in keys or (self.store.steps_directory / f"{key}.json").exists()

    def _remove_step(self, path: Path) -> bool:
        with self.store.leases.idle(path.stem) as idle:
            return idle and self._remove(path)

    def _remove_work(self, path: Path) -> bool:
        with self.store.leases.idle(path.name) as idle:
            return idle and self._remove(path)

    def _remove(self, path: Path) -> bool:
        """Remove an entry that is older than the grace period: out of sight first, by one rename."""
        try:
            if _newest(path) > self.before:
                return False
            self.freed += sum(_unlinked(path, self.seen))
            if self.dry_run:
                return True
            doomed = path if path.parent == self.store.tmp else self.store.tmp / unique_name("removed-")
            if doomed != path:
                path.rename(doomed)
        except FileNotFoundError:
            return False  # Another process was faster.
        if doomed.is_dir():
            remove_tree(doomed)
        else:
            doomed.unlink(missing_ok=True)
        return True


def _is_held(run: Path) -> bool:
    """Whether a process is executing the run."""
    lock = FileLock(run / "lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _runs(directory: Path) -> dict[Path, dict[str, Any]]:
    """The runs' directories with their records, oldest first; a record that cannot be read is empty."""
    runs = {}
    for path in _entries(directory):
        try:
            record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = {}
        runs[path] = record if isinstance(record, dict) else {}
    return dict(sorted(runs.items(), key=lambda item: (str(item[1].get("started", "")), item[0].name)))


def _older(runs: Mapping[Path, Mapping[str, Any]], keep: int) -> list[Path]:
    """The runs but the newest; those that only evaluated a champion are counted by themselves."""
    evaluations = [run for run, record in runs.items() if record.get("evaluates")]
    others = [run for run in runs if run not in evaluations]
    return [run for those in (others, evaluations) for run in those[: max(0, len(those) - keep)]]


def _keys(record: dict[str, Any]) -> Iterator[str]:
    for step in record.get("steps") or ():
        if not isinstance(step, dict):
            continue
        searched = step.get("search") or {}
        for node in (*(step.get("nodes") or ()), *(searched.get("trials") or ())):
            if isinstance(node, dict) and isinstance(node.get("key"), str):
                yield node["key"]


def _reports(record: dict[str, Any]) -> Iterator[str]:
    for step in record.get("steps") or ():
        for node in step.get("nodes") or () if isinstance(step, dict) else ():
            if isinstance(node, dict) and isinstance(node.get("report"), str):
                yield node["report"]


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _newest(path: Path) -> float:
    """When an entry was last changed; of a directory also its own entries and theirs, two levels down."""
    times = [path.stat().st_mtime]
    for root, folders, names in os.walk(path):
        if len(Path(root).relative_to(path).parts) >= 2:
            folders.clear()
        times.extend(Path(root, name).lstat().st_mtime for name in (*folders, *names))
    return max(times)


def _unlinked(path: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    """The sizes of the files that no link outside of `path` keeps alive."""
    files = [Path(root, name) for root, _, names in os.walk(path) for name in names]
    for file in files or [path]:
        if file.lstat().st_nlink == 1:
            yield measure(file, seen)
