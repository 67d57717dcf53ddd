"""Pairs of messages and translations from gettext's .po and .mo files, read with polib."""

from __future__ import annotations

import gettext
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import polars as pl
import polib

from luthier import Context, InputError
from luthier_text._installed import distributions

SCHEMA = {
    "text": pl.String,
    "translation": pl.String,
    "language": pl.String,
    "target_language": pl.String,
    "context": pl.String,
    "file": pl.String,
    "source": pl.String,
    "group": pl.String,
}
SUFFIXES = (".po", ".mo")
NUMBERS = 200
"""So many numbers show which plural form a language uses most."""

Catalogue = polib.POFile | polib.MOFile
Entry = polib.POEntry | polib.MOEntry


class CatalogueFile(NamedTuple):
    """A file of translations: its name in the rows, and where it lies."""

    name: str
    path: Path


def read_gettext(
    ctx: Context, path: Path | None, packages: Sequence[str], original: str, languages: Sequence[str] | None
) -> Iterator[pl.DataFrame]:
    """A frame for each file that has translations, by name; see `sources.gettext`.

    Raises:
        InputError: if there are no files, or none has a translation into one of the languages.
    """
    files = _below(path) if path else _installed(packages)
    left_out: Counter[str] = Counter()
    seen: set[str] = set()
    total = 0
    for done, file in enumerate(files, 1):
        catalogue = _open(ctx, file)
        if catalogue is not None:
            language = language_of(catalogue, file)
            seen.add(language)
            if languages is None or language in languages:
                rows = [(*row[:2], original, language, *row[2:]) for row in messages(catalogue, left_out)]
                total += len(rows)
                if rows:
                    yield _frame(rows, file)
        ctx.progress(done, len(files), messages=total)
    for reason, count in sorted(left_out.items()):
        ctx.log.info("left out: %d messages, %s", count, reason)
    if not total:
        raise InputError(
            f"no translation into {', '.join(languages or ['any language'])} in {len(files)} files",
            f"They are in: {', '.join(sorted(seen)) or 'no language'}.",
        )


def _below(path: Path) -> list[CatalogueFile]:
    if path.is_file():
        return [CatalogueFile(path.name, path)]
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not found:
        raise InputError(f"{path} has no .po or .mo file", "Name a file, or a directory that has some.")
    return _sources([CatalogueFile(file.relative_to(path).as_posix(), file) for file in found])


def _installed(packages: Sequence[str]) -> list[CatalogueFile]:
    found = [
        CatalogueFile(entry.as_posix(), Path(str(distribution.locate_file(entry))))
        for distribution in distributions(list(packages)).values()
        for entry in sorted(distribution.files or ())
        if entry.suffix in SUFFIXES and ".." not in entry.parts
    ]
    if not found:
        raise InputError(f"{', '.join(packages)}: no .po or .mo file is installed", "Name other packages, or a `path`.")
    return _sources(found)


def _sources(files: Sequence[CatalogueFile]) -> list[CatalogueFile]:
    # A .mo is compiled from the .po beside it, which says more.
    written = {file.name for file in files if file.name.endswith(".po")}
    return [file for file in files if not file.name.endswith(".mo") or f"{file.name[:-3]}.po" not in written]


def _open(ctx: Context, file: CatalogueFile) -> Catalogue | None:
    try:
        if file.path.suffix == ".mo":
            return polib.mofile(str(file.path))
        return polib.pofile(str(file.path))
    except Exception as error:  # polib gives whatever its parser met: OSError, ValueError, struct.error, AttributeError
        ctx.quarantine("", f"not readable as gettext: {error}", where=file.name)
        return None


def language_of(catalogue: Catalogue, file: CatalogueFile) -> str:
    """The language: of `fr/LC_MESSAGES/x.po` the directory's, else what the header says, else the file's name."""
    parts = PurePosixPath(file.path.as_posix()).parts
    if len(parts) > 2 and parts[-2] == "LC_MESSAGES":
        return parts[-3]
    return catalogue.metadata.get("Language", "").strip() or file.path.stem


def messages(catalogue: Catalogue, left_out: Counter[str]) -> Iterator[tuple[str, str, str | None]]:
    """Pairs of message and translation with their context; what has no sound translation is counted by reason."""
    forms = plural_forms(catalogue.metadata.get("Plural-Forms", ""))
    for entry in catalogue:
        reason = _unusable(entry)
        pairs = [] if reason else _pairs(entry, forms)
        if not pairs:
            left_out[reason or "plural forms unknown"] += 1
        for message, translation in pairs:
            if message.strip() and translation.strip() and "\0" not in message + translation:
                yield message, translation, entry.msgctxt


def _unusable(entry: Entry) -> str:
    if entry.obsolete:
        return "obsolete"
    if isinstance(entry, polib.POEntry) and entry.fuzzy:
        return "fuzzy"
    translations = list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]
    return "" if translations and all(translations) else "untranslated"


def _pairs(entry: Entry, forms: tuple[int, int] | None) -> list[tuple[str, str]]:
    if not entry.msgid_plural:
        return [(entry.msgid, entry.msgstr)]
    if forms is None or any(form not in entry.msgstr_plural for form in forms):
        return []
    one, many = forms
    pairs = [(entry.msgid_plural, entry.msgstr_plural[many])]
    # Where one and many are the same form, it is written for any number, as the plural is.
    return pairs if one == many else [(entry.msgid, entry.msgstr_plural[one]), *pairs]


def plural_forms(header: str) -> tuple[int, int] | None:
    """The form for one, and the form that most other numbers take; None if the header does not say."""
    expression = re.search(r"plural\s*=\s*([^;]+)", header)
    if not expression:
        return None
    try:
        form = gettext.c2py(expression[1])
        counts = Counter(form(number) for number in range(2, NUMBERS))
        return form(1), max(sorted(counts), key=counts.__getitem__)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None


def _frame(rows: list[tuple[str, str, str, str, str | None]], file: CatalogueFile) -> pl.DataFrame:
    complete = [(*row, file.name, file.name, group_of(row[0])) for row in rows]
    return pl.DataFrame(complete, schema=SCHEMA, orient="row")


def group_of(message: str) -> str:
    """The group of a message: the same for all its translations, whatever its case and blanks."""
    return hashlib.sha256(" ".join(message.lower().split()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
