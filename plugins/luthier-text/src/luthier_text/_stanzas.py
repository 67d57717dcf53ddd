"""Stanzas of fields, the form of Debian's control files, read as a stream from files in any compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from luthier import InputError

APT_HELPER = "/usr/lib/apt/apt-helper"
OPENERS: Mapping[str, Callable[[Path], object]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
    ".bz2": bz2.open,
}
BY_APT = (".lz4", ".zst")
Stanza = dict[str, str]


def read_stanzas(lines: Iterable[bytes], wanted: Collection[str]) -> Iterator[Stanza]:
    r"""The stanzas that have one of the wanted fields, with these fields alone.

    Bytes that are not UTF-8 become U+FFFD. Lines that are neither a field, its continuation nor blank are skipped.

    Args:
        lines: a control file's lines.
        wanted: names of fields, in lower case, which is how they are compared and given.

    Yields:
        For each stanza the values; continuation lines follow after `\n`, with the blank that they begin with.
    """
    stanza: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if line.isspace():
                yield from _finished(stanza)
                stanza, current = {}, None
            elif current is not None:
                current.append(_text(line))
            continue
        name, colon, value = line.partition(b":")
        current = None
        if not colon:
            if not line.strip():
                yield from _finished(stanza)
                stanza = {}
            continue
        field = name.decode("ascii", "replace").strip().lower()
        if field in wanted:
            current = stanza[field] = [_text(value).strip()]
    yield from _finished(stanza)


def _finished(stanza: dict[str, list[str]]) -> Iterator[Stanza]:
    if stanza:
        yield {field: "\n".join(lines) for field, lines in stanza.items()}


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r\n")


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file that apt keeps, whatever compression its name says.

    What Python does not unpack (lz4, zstd), apt itself does.

    Raises:
        InputError: if the file is damaged, or apt is needed and is not there.
    """
    try:
        if path.suffix in BY_APT:
            with _through_apt(path) as stream:
                yield stream
        elif path.suffix in OPENERS:
            with cast("IO[bytes]", OPENERS[path.suffix](path)) as stream:
                yield stream
        else:
            with path.open("rb") as stream:
                yield stream
    except (EOFError, OSError, lzma.LZMAError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Run `apt-get update` again.") from error


@contextmanager
def _through_apt(path: Path) -> Iterator[IO[bytes]]:
    if not Path(APT_HELPER).exists():
        raise InputError(
            f"{path}: only apt reads {path.suffix[1:]} here, and there is no {APT_HELPER}",
            "Unpack the file where it is, or pack it as .gz or .xz.",
        )
    with subprocess.Popen([APT_HELPER, "cat-file", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
            ended = process.stdout.read(1) == b""
        except BaseException:
            process.kill()
            raise
        if not ended:
            process.kill()
        elif process.wait():
            raise OSError(f"apt-helper ended with {process.returncode}")
