"""The content-addressed store: artifacts by their hash, steps by their key, all or nothing after a crash.

    version        the format of this directory
    objects/HASH/  manifest.json and content/: one artifact, complete or absent
    steps/KEY.json which artifact a step gave; written last
    work/KEY/      a running step's output and its checkpoints
    locks/         one file a key; the lock on it ends with the process that holds it
    runs/ID/       one run: events, recipe, report
    quarantine/    artifacts that did not match their manifest
    tmp/           what is not finished, or being removed

Everything becomes visible by one rename, after it is on the disk. So no reader needs a lock: the locks
only keep two processes from doing the same work. Nothing is created before the first write.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from luthier.artifacts import ARTIFACTS, Artifact, FileEntry, Kind, Manifest, build_manifest, list_files
from luthier.errors import InputError
from luthier.files import (
    REMEDY,
    disk_errors,
    measure,
    place_copy,
    remove_tree,
    settle,
    sync_directory,
    unique_name,
    write_atomically,
)
from luthier.leases import Leases, WorkDirectory

__all__ = ["StepRecord", "Store", "WorkDirectory"]

STORE_VERSION = 1
STEP_VERSION = 1
LINK_FROM = 1 << 20
"""Bytes from which an exported file is linked: below it, a copy that the user can edit is cheap."""

UPGRADE = "Upgrade: pip install --upgrade luthier"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StepRecord:
    """What one step gave, and what its key was made of.

    Args:
        key: the step's key, a hex SHA-256.
        stage: its stage.
        component: its component's name; of fused steps, all of them.
        ingredients: what the key covers, as JSON, so that a changed key can be explained.
        output: hash of the artifact.
        report: hash of the report artifact, empty where there is none.
        seconds: how long it took.
        finished: when, in UTC, in ISO 8601.
        host: where.
        details: counts, samples and whatever else the run shows.
    """

    key: str
    stage: str
    component: str
    ingredients: dict[str, Any]
    output: str
    report: str = ""
    seconds: float = 0.0
    finished: str = ""
    host: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The record as it is stored."""
        return json.dumps({"version": STEP_VERSION, **asdict(self)}, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> StepRecord | None:
        """Read a record; one that cannot be understood is None.

        Raises:
            InputError: if a newer Luthier wrote it.
        """
        try:
            record = json.loads(text)
            version = record.pop("version")
            if isinstance(version, int) and version > STEP_VERSION:
                raise InputError(
                    f"a step's record has version {version}; this Luthier reads up to {STEP_VERSION}", UPGRADE
                )
            return cls(**{entry.name: record[entry.name] for entry in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class Store:
    """The store at `root`.

    Every method that writes raises `InputError`, naming the place and the remedy, when the disk is full
    or the store cannot be written.

    Raises:
        InputError: if a newer Luthier wrote this store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.objects_directory = self.root / "objects"
        self.steps_directory = self.root / "steps"
        self.work = self.root / "work"
        self.locks = self.root / "locks"
        self.runs = self.root / "runs"
        self.generations = self.root / "generations"
        self.quarantine = self.root / "quarantine"
        self.tmp = self.root / "tmp"
        self.leases = Leases(self.work, self.locks)
        self._check_version()

    def prepare(self) -> None:
        """Create the store's directories; every writing method does so by itself."""
        with disk_errors(self.root, REMEDY):
            for directory in (
                self.objects_directory,
                self.steps_directory,
                self.work,
                self.locks,
                self.runs,
                self.quarantine,
                self.tmp,
            ):
                directory.mkdir(parents=True, exist_ok=True)
            if not (self.root / "version").exists():
                # A store lies beside a recipe, often in a repository: it should not be committed there.
                write_atomically(self.root / ".gitignore", "*\n", self.tmp)
                write_atomically(self.root / "version", f"{STORE_VERSION}\n", self.tmp)

    # --- artifacts ------------------------------------------------------------------------------------

    def commit(self, directory: Path, kind: Kind, form: str) -> Artifact:
        """Move a directory into the store as an artifact; where the store has it already, drop the new one.

        The files become read-only: exported files may be links to them.

        Args:
            directory: on the store's file system (a work directory); it is gone afterwards.
            kind: the artifact's kind.
            form: its form.

        Raises:
            PluginError: if it holds a symbolic link or anything else that is no regular file.
            InputError: if the disk is full or not writable; `directory` is then still there.
        """
        self.prepare()
        with disk_errors(self.root, REMEDY):
            manifest = Manifest(kind, form, tuple(FileEntry(*entry) for entry in settle(directory)))
            if not self._present(manifest.hash):
                self._publish(directory, manifest)
            remove_tree(directory)
        artifact = self.get(manifest.hash)
        if artifact is None:
            raise InputError(
                f"artifact {manifest.hash[:12]} vanished from {self.root} as it was stored",
                "Run again; do not remove files of the store while it is in use.",
            )
        return artifact

    def get(self, hash: str) -> Artifact | None:
        """The artifact, or None where it is missing or damaged (a damaged one goes to quarantine).

        Cheap: the manifest is read, presence and sizes of the files are checked, their bytes are not.

        Raises:
            InputError: if a newer Luthier wrote it.
        """
        manifest = self.manifest(hash)
        if manifest is None:
            return None
        content = self.objects_directory / hash / "content"
        for entry in manifest.files:
            try:
                status = (content / entry.path).stat()
            except (FileNotFoundError, NotADirectoryError):
                status = None
            if status is None or status.st_size != entry.size:
                self._quarantine(hash)
                return None
        return ARTIFACTS[manifest.kind].at(content, manifest.form, hash)

    def manifest(self, hash: str) -> Manifest | None:
        """The artifact's manifest, or None where the artifact is missing or its manifest damaged.

        Raises:
            InputError: if a newer Luthier wrote it.
        """
        directory = self.objects_directory / hash
        if not _HASH.fullmatch(hash) or not directory.is_dir():
            return None
        try:
            manifest = Manifest.from_json((directory / "manifest.json").read_text(encoding="utf-8"))
            sound = manifest.hash == hash and manifest.kind in ARTIFACTS
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            self._quarantine(hash)
            return None
        return manifest

    def verify(self, hash: str) -> bool:
        """Whether the artifact is here and every byte is as its manifest says; a bad one goes to quarantine."""
        artifact = self.get(hash)
        if artifact is None:
            return False
        try:
            sound = build_manifest(artifact.path, artifact.kind, artifact.form).hash == hash
        except FileNotFoundError:
            sound = False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            sound = False
        if not sound:
            self._quarantine(hash)
        return sound

    def touch(self, hash: str) -> None:
        """Restart the grace period of garbage collection for an artifact."""
        _touch(self.objects_directory / hash)

    def objects(self) -> Iterator[str]:
        """The hashes of all artifacts, sorted."""
        yield from (name for name in _names(self.objects_directory) if _HASH.fullmatch(name))

    def export(self, artifact: Artifact, destination: Path) -> None:
        """Put an artifact's files at `destination` (a directory, made if it is missing) for the user.

        Files below 1 MiB are copied and can be edited; larger ones are read-only hard links into the store,
        or copies where links cannot be made. Other files in `destination` are left alone.
        """
        with disk_errors(destination, "Or choose another destination."):
            for source in list_files(artifact.path):
                target = destination / source.relative_to(artifact.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                place_copy(source, target, link=source.stat().st_size >= LINK_FROM)

    # --- steps ----------------------------------------------------------------------------------------

    def step(self, key: str) -> StepRecord | None:
        """What the step of this key gave, or None unless its record and its artifacts are all here.

        A record that cannot be read counts as absent: the step runs again. Reading one restarts the grace
        period of garbage collection for it.

        Raises:
            InputError: if a newer Luthier wrote it.
        """
        record = self._read_record(self.steps_directory / f"{key}.json")
        if record is None or record.key != key:
            return None
        if any(self.get(artifact) is None for artifact in (record.output, record.report) if artifact):
            return None
        _touch(self.steps_directory / f"{key}.json")
        return record

    def steps(self) -> Iterator[StepRecord]:
        """All records that can be read, sorted by key, whether or not their artifacts are still here."""
        for name in _names(self.steps_directory):
            record = self._read_record(self.steps_directory / name)
            if record is not None:
                yield record

    def record(self, record: StepRecord) -> None:
        """Write a step's record. Its artifacts are in the store already: this makes them its result."""
        self.prepare()
        with disk_errors(self.root, REMEDY):
            write_atomically(self.steps_directory / f"{record.key}.json", record.to_json(), self.tmp)

    @contextmanager
    def lease(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[WorkDirectory]:
        """Hold a step's work directory alone, until the block ends or the process dies.

        Where another process holds it, `on_wait` is called once and this waits; look at `step(key)` again
        when the lease is there, for the other has probably done the work. What earlier attempts left is
        removed, except their checkpoint. On success call `discard()` within the block; else the checkpoint
        stays for the next attempt.
        """
        self.prepare()
        with self.leases.hold(key, on_wait) as work:
            yield work

    # --- housekeeping ---------------------------------------------------------------------------------

    def usage(self) -> dict[str, tuple[int, int]]:
        """For each part of the store the number of its entries and their bytes, hard links counted once."""
        seen: set[tuple[int, int]] = set()
        parts = (
            self.objects_directory,
            self.steps_directory,
            self.generations,
            self.work,
            self.runs,
            self.quarantine,
            self.tmp,
        )
        return {
            part.name: (len(_names(part)), sum(measure(part / name, seen) for name in _names(part))) for part in parts
        }

    # --- inner parts ----------------------------------------------------------------------------------

    def _check_version(self) -> None:
        try:
            version = int((self.root / "version").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # New, or its version file is lost: artifacts and records carry versions of their own.
        if version > STORE_VERSION:
            raise InputError(
                f"the store {self.root} has version {version}; this Luthier reads up to {STORE_VERSION}", UPGRADE
            )

    def _present(self, hash: str) -> bool:
        """Whether the artifact is stored already; its grace period then starts again."""
        if self.get(hash) is None:
            return False
        _touch(self.objects_directory / hash)
        return True

    def _publish(self, directory: Path, manifest: Manifest) -> None:
        """Make a settled directory visible as an artifact, by one rename."""
        assembly = self.tmp / unique_name()
        assembly.mkdir()
        try:
            write_atomically(assembly / "manifest.json", manifest.to_json(), assembly)
            directory.rename(assembly / "content")
        except BaseException:
            remove_tree(assembly)
            raise
        sync_directory(assembly)
        try:
            assembly.rename(self.objects_directory / manifest.hash)
        except OSError:
            # Another process may have stored the same artifact in between; a rename never replaces it.
            if not self._present(manifest.hash):
                (assembly / "content").rename(directory)
                remove_tree(assembly)
                raise
            remove_tree(assembly)
        sync_directory(self.objects_directory)

    def _quarantine(self, hash: str) -> None:
        with disk_errors(self.root, REMEDY):
            self.prepare()
            for number in range(1_000_000):
                try:
                    (self.objects_directory / hash).rename(self.quarantine / f"{hash}-{number}")
                except FileNotFoundError:
                    return  # Another process was faster.
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                else:
                    return

    def _read_record(self, path: Path) -> StepRecord | None:
        try:
            return StepRecord.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None


def _touch(path: Path) -> None:
    # A read-only store can still be read.
    with suppress(OSError):
        os.utime(path)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
