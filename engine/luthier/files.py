"""Writing files so that a crash leaves the old or the new, and saying in words what a disk refuses.

The order is always the same: write aside, flush to the disk, rename into place, flush the directory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier.errors import FULL_DISK_ERRORS, InputError, PluginError

REMEDY = "Or set LUTHIER_HOME to another directory."
"""The way out, besides mending the place, when the store cannot be written."""

FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EEXIST})
FREE_SPACE = "Free some space: `luthier store gc` removes what old runs left in a store."


@contextmanager
def disk_errors(place: Path, remedy: str) -> Iterator[None]:
    """Turn a full disk, a read-only place and a file in the way into an `InputError` that names them.

    Args:
        place: the directory that the user knows, for the message.
        remedy: what else can be done; how the place itself is mended is said before it.
    """
    try:
        yield
    except OSError as error:
        told = disk_error(error, place, remedy)
        if told is None:
            raise
        raise told from error


def disk_error(error: OSError, place: Path, remedy: str) -> InputError | None:
    """What a disk refused, in words, with the remedy that fits; None for an error of another kind.

    Args:
        error: the error.
        place, remedy: as for `disk_errors`.
    """
    where = f" ({error.filename})" if error.filename and str(error.filename) != str(place) else ""
    if error.errno in FULL_DISK_ERRORS:
        return InputError(f"no space left on the disk of {place}{where}", f"{FREE_SPACE} {remedy}")
    if error.errno in FORBIDDEN:
        mend = "Mount it for writing." if error.errno == errno.EROFS else "Mend its permissions."
        return InputError(f"cannot write to {place}: {error.strerror}{where}", f"{mend} {remedy}")
    if error.errno in IN_THE_WAY:
        mend = "Move what is in its way."
        return InputError(f"{place} is not usable as a directory: {error.strerror}{where}", f"{mend} {remedy}")
    return None


def unique_name(prefix: str = "") -> str:
    """A name that no other process and no earlier attempt uses."""
    return f"{prefix}{uuid.uuid4().hex}"


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to the disk, where the platform can (Windows cannot, and need not)."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_and_sync(path: Path) -> str:
    """The hex SHA-256 of a file's bytes, flushed to the disk while it is open."""
    # Windows flushes only what is open for writing.
    with path.open("rb") if os.name == "posix" else path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest


def settle(directory: Path) -> list[tuple[str, int, str]]:
    """Flush a directory to the disk and make its files read-only.

    Returns:
        For each file its relative POSIX path, size in bytes and hex SHA-256, sorted by path.

    Raises:
        PluginError: if it holds a symbolic link or anything else that is no regular file.
    """
    entries = []
    folders = list(os.walk(directory))
    for folder, below, names in folders:
        for name in (*below, *names):
            _check_regular(Path(folder, name), directory)
    for path in (Path(folder, name) for folder, _, names in folders for name in names):
        _own(path)
        digest = hash_and_sync(path)
        entries.append((path.relative_to(directory).as_posix(), path.stat().st_size, digest))
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    for folder, _, _ in reversed(folders):
        sync_directory(Path(folder))
    return sorted(entries)


def _check_regular(path: Path, directory: Path) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise PluginError(
            f"an artifact holds {path.relative_to(directory).as_posix()}, which is no regular file",
            "Write files, not links: an artifact must not depend on what lies outside of it.",
        )


def _own(path: Path) -> None:
    """Part a file from writable hard links to it elsewhere: through them it could be changed later."""
    status = path.stat()
    if status.st_nlink > 1 and status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        place_copy(path, path, link=False)


def write_atomically(path: Path, text: str, aside: Path) -> None:
    """Replace a text file as a whole and durably.

    Args:
        path: the file; its directory exists.
        text: what it will hold, as UTF-8; what is no Unicode (a file's name may be none) becomes an escape.
        aside: an existing directory of the same file system, for the unfinished file.
    """
    unfinished = aside / unique_name()
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_tree(directory: Path) -> None:
    """Remove a directory with everything in it, read-only files too; nothing happens if it is gone.

    What another process removes or adds meanwhile is not an error: the rest is left to the next garbage
    collection.
    """

    def retry_writable(function: Callable[..., Any], path: str, failure: Any) -> None:
        if isinstance(failure[1], FileNotFoundError):
            return
        try:
            # Windows refuses to remove a read-only file; POSIX refuses within a read-only directory.
            for part in (os.path.dirname(path), path):
                os.chmod(part, stat.S_IRWXU)
            function(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    shutil.rmtree(directory, onerror=retry_writable)


def measure(directory: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Bytes of the files below `directory` (or of the file itself), each hard-linked file once.

    `seen` collects (device, inode) across calls, so that links between directories count once too.
    """
    seen = set() if seen is None else seen
    paths = [Path(root, name) for root, _, names in os.walk(directory) for name in names]
    total = 0
    for path in paths or [directory]:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def place_copy(source: Path, destination: Path, *, link: bool) -> None:
    """Put a file at `destination`, replacing what is there: hard-linked where asked and possible, else copied.

    A copy is writable whatever the source is.
    """
    if link and destination.exists() and destination.samefile(source):
        return
    unfinished = destination.with_name(unique_name(".unfinished-"))
    try:
        if not (link and _linked(source, unfinished)):
            shutil.copyfile(source, unfinished)
        unfinished.replace(destination)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _linked(source: Path, destination: Path) -> bool:
    try:
        destination.hardlink_to(source)
    except OSError as error:
        # Another file system, one without links, a file with too many, or links to others' files forbidden.
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES):
            return False
        raise
    return True
