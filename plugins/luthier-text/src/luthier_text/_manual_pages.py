"""Documents from manual pages, rendered by groff."""

from __future__ import annotations

import gzip
import hashlib
import re
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import polars as pl

from luthier import Context, InputError
from luthier_text._groff import FILTER, ONE_LINE, groff

SCHEMA = dict.fromkeys(("text", "name", "section", "source", "group"), pl.String)
FRAME_PAGES = 256
SECONDS = 30
"""A page that takes longer is set aside; the usual one takes a twentieth of a second."""

_FILE = re.compile(r"(?P<name>.+)\.(?P<section>[0-9][0-9a-zA-Z]*)(?:\.gz)?")
_FAMILY = re.compile(r"[-_.:@\d]")
_REDIRECT = re.compile(rb"\A(?:[.']\\\".*\n)*\.so\s")
_BLANKS = re.compile(r"\n{3,}")
_FOOT = re.compile(r"\S {10,}\S|^ {200,}\S")
"""Stretched over the line; a page that has no date and no source has a name at the right end alone."""
_CENTRED = re.compile(r"^ {200,}", re.MULTILINE)
"""What centres a line, or a table, in a page of ten thousand columns."""
_HEADER = re.compile(r"\S+\(\S+\)\s.*")


class Page(NamedTuple):
    """A file of the manual."""

    path: Path
    name: str
    section: str

    @property
    def family(self) -> str:
        """What comes before the first mark or digit of the name: `git` of git-log, `perl` of perl5db."""
        return _FAMILY.split(self.name, maxsplit=1)[0] or self.name


def read_manual_pages(
    ctx: Context, directory: Path, sections: Sequence[str], per_family: int | None
) -> Iterator[pl.DataFrame]:
    """Frames of pages, by their paths; see `sources.manual_pages`.

    Raises:
        InputError: if there is no such page, none can be read, or groff is not installed.
    """
    program = groff()
    pages = list(_limited(_pages(directory, sections), per_family))
    if not pages:
        raise InputError(
            f"{directory} has no manual pages in the sections {', '.join(sections)}",
            "Name the directory that holds man1, man2, … with `path`. Images of containers often leave pages out.",
        )
    total = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for start in range(0, len(pages), FRAME_PAGES):
            some = pages[start : start + FRAME_PAGES]
            rows = []
            for page, rendered in zip(some, pool.map(lambda page: _render(program, page), some), strict=True):
                where = page.path.relative_to(directory).as_posix()
                if rendered.failure:
                    ctx.quarantine(rendered.text, rendered.failure, where=where)
                elif rendered.text:
                    rows.append((rendered.text, page.name, page.section, where, page.family))
            if rows:
                yield pl.DataFrame(rows, schema=SCHEMA, orient="row")
            total += len(rows)
            ctx.progress(start + len(some), len(pages), documents=total)
    if not total:
        raise InputError(f"none of the {len(pages)} manual pages below {directory} can be read", "See the quarantine.")


def _pages(directory: Path, sections: Sequence[str]) -> Iterator[Page]:
    for section in sections:
        for path in sorted(directory.glob(f"man{section}/*")):
            found = _FILE.fullmatch(path.name)
            # A link is another name of a page.
            if found and path.is_file() and not path.is_symlink():
                yield Page(path, found["name"], found["section"])


def _limited(pages: Iterator[Page], per_family: int | None) -> Iterator[Page]:
    """At most so many of each family, picked by the hash of their names, in their order."""
    listed = list(pages)
    if per_family is None:
        return iter(listed)
    families: dict[str, list[Page]] = defaultdict(list)
    for page in sorted(listed, key=lambda page: hashlib.sha256(page.path.name.encode()).digest()):
        families[page.family].append(page)
    kept = {page for family in families.values() for page in family[:per_family]}
    return (page for page in listed if page in kept)


class Rendered(NamedTuple):
    """The text of a page; with a `failure`, what was in the way, the text is a sample of the file."""

    text: str
    failure: str = ""


def _render(program: str, page: Page) -> Rendered:
    try:
        content = page.path.read_bytes()
        source = gzip.decompress(content) if page.path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        return Rendered("", f"cannot be read: {error}")
    if _REDIRECT.match(source):
        return Rendered("")
    try:
        done = subprocess.run(
            [program, *FILTER, *ONE_LINE], input=source, capture_output=True, timeout=SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        return Rendered(_sample(source), f"groff was not done after {SECONDS} s")
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().splitlines() or [f"status {error.returncode}"]
        return Rendered(_sample(source), f"groff failed: {told[0]}")
    return Rendered(_tidy(done.stdout.decode("utf-8", errors="replace")))


def _sample(source: bytes) -> str:
    return source[:200].decode(errors="replace")


def _tidy(text: str) -> str:
    """Without the lines at the head and the foot of a page, trailing blanks, and gaps of several lines."""
    lines = [line.rstrip() for line in text.strip().split("\n")]
    if lines and _HEADER.fullmatch(lines[0]):
        del lines[0]
    # The foot: whatever stands alone after the last gap and is stretched over the line.
    if len(lines) > 1 and not lines[-2] and _FOOT.search(lines[-1]):
        del lines[-1]
    return _BLANKS.sub("\n\n", _CENTRED.sub("", "\n".join(lines))).strip()
