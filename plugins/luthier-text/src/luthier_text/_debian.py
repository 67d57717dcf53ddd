"""Descriptions of Debian packages, in one language or as pairs of two."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from luthier import Context, InputError
from luthier_text._catalogues import KEEP, Catalogue, catalogues
from luthier_text._stanzas import Stanza, read_stanzas, unpacked
from luthier_text._union import linked

FRAME_ROWS = 4096
SCHEMA = {
    "text": pl.String,
    "summary": pl.String,
    "language": pl.String,
    "package": pl.String,
    "section": pl.String,
    "group": pl.String,
}
PAIR_SCHEMA = {
    "translation": pl.String,
    "summary_translation": pl.String,
    "target_language": pl.String,
}
UNTRANSLATED = "<trans>"
BLANKS = re.compile(r"\s+")


class Key(NamedTuple):
    """What descriptions in several languages are joined on."""

    package: str
    md5: str


class Description(NamedTuple):
    """One description: the line that sums the package up, and its paragraphs."""

    summary: str
    text: str


Descriptions = dict[Key, Description]
Sections = dict[str, str]
Row = dict[str, str]


def read_descriptions(ctx: Context, directory: Path, languages: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Frames of descriptions, by package; see `sources.debian_descriptions`.

    Raises:
        InputError: if a catalogue is not there, or no package has a long description in the languages.
    """
    found = catalogues(directory, languages)
    by_language: dict[str, Descriptions] = {}
    sections: Sections = {}
    for language in languages:
        # The index of packages first: its descriptions may be short, and the translations' take their place.
        chosen = sorted((c for c in found if c.holds == language), key=lambda c: (c.language != "", c.path))
        by_language[language] = _read_language(chosen, language, sections)
        ctx.log.info("%d packages have a long description in %s", len(by_language[language]), language)
        if not by_language[language]:
            raise InputError(
                f"{directory} has no long description in the language {language!r}, only short ones or none",
                KEEP.format(",".join(languages)),
            )
    yield from _frames(ctx, by_language, sections, languages)


def _read_language(found: Iterable[Catalogue], language: str, sections: Sections) -> Descriptions:
    """The descriptions in a language; the sections that an index of packages names are added to `sections`."""
    descriptions: Descriptions = {}
    field = f"description-{language}".lower()
    for catalogue in found:
        with unpacked(catalogue.path) as stream:
            for stanza in read_stanzas(stream, {"package", "section", "description-md5", "description", field}):
                if "section" in stanza and "package" in stanza:
                    sections[stanza["package"]] = stanza["section"]
                described = _described(stanza, field)
                if described:
                    descriptions[described[0]] = described[1]
    return descriptions


def _described(stanza: Stanza, field: str) -> tuple[Key, Description] | None:
    written = stanza.get(field) or stanza.get("description", "")
    package = stanza.get("package", "")
    summary, _, long = written.partition("\n")
    text = paragraphs(long)
    # A translation that is not finished says so in its text.
    if not (package and summary.strip() and text) or UNTRANSLATED in written or "\0" in written:
        return None
    md5 = stanza.get("description-md5") or md5_of(written)
    return Key(package, md5), Description(BLANKS.sub(" ", summary).strip(), text)


def md5_of(description: str) -> str:
    """The Description-md5 of an English description, for an index that does not say it."""
    return hashlib.md5(f"{description}\n".encode(), usedforsecurity=False).hexdigest()


def paragraphs(markup: str) -> str:
    """A long description's markup as plain text.

    The lines of a paragraph are joined; ` .` is a blank line; lines that are indented by more than the one
    blank of the markup (lists, examples) stay lines of their own, without what they are indented by in common.
    """
    blocks: list[list[str]] = [[]]
    joins = False
    for line in markup.split("\n"):
        content = line[1:].rstrip()
        if content in ("", "."):
            if blocks[-1]:
                blocks.append([])
            joins = False
        elif content[0].isspace():
            blocks[-1].append(content[1:])
            joins = False
        else:
            content = BLANKS.sub(" ", content)
            if joins:
                blocks[-1][-1] += f" {content}"
            else:
                blocks[-1].append(content)
            joins = True
    return "\n\n".join("\n".join(block) for block in blocks if block).strip()


def groups(rows: Sequence[str], texts: Sequence[Sequence[str]]) -> dict[str, str]:
    """The group of each package: packages that share a paragraph, in any language, belong together.

    Args:
        rows: the rows' packages; the descriptions of one package belong together too.
        texts: for each row its texts.

    Returns:
        For each package the least name of its group's packages.
    """
    packages: list[str] = []
    shared: list[str] = []
    for package, row in zip(rows, texts, strict=True):
        for text in row:
            for paragraph in text.split("\n\n"):
                packages.append(package)
                shared.append(BLANKS.sub(" ", paragraph).strip().lower())
    return dict(zip(packages, linked(packages, shared), strict=True))


def _frames(
    ctx: Context, found: dict[str, Descriptions], sections: Sections, languages: Sequence[str]
) -> Iterator[pl.DataFrame]:
    first, others = languages[0], languages[1:]
    rows = list(_pairs(found, first, others) if others else _alone(found[first], first))
    if not rows:
        raise InputError(
            f"no description in the language {first!r} is also there in {', '.join(others)}",
            "Catalogues of one distribution and release belong together.",
        )
    ctx.log.info("%d rows of %d descriptions in %s", len(rows), len(found[first]), first)
    texts = [[row["text"], *filter(None, [row.get("translation")])] for row in rows]
    members = groups([row["package"] for row in rows], texts)
    schema = SCHEMA | (PAIR_SCHEMA if others else {})
    for start in range(0, len(rows), FRAME_ROWS):
        part = rows[start : start + FRAME_ROWS]
        yield pl.DataFrame(
            [row | {"group": members[row["package"]], "section": sections.get(row["package"])} for row in part],
            schema=schema,
        )
        ctx.progress(start + len(part), len(rows))


def _alone(descriptions: Descriptions, language: str) -> Iterator[Row]:
    for key, found in sorted(descriptions.items()):
        yield {"text": found.text, "summary": found.summary, "language": language, "package": key.package}


def _pairs(found: dict[str, Descriptions], first: str, others: Sequence[str]) -> Iterator[Row]:
    for key, original in sorted(found[first].items()):
        for language in others:
            translated = found[language].get(key)
            # What nobody translated is sometimes kept as a copy.
            if translated and translated.text != original.text:
                yield {
                    "text": original.text,
                    "summary": original.summary,
                    "language": first,
                    "package": key.package,
                    "translation": translated.text,
                    "summary_translation": translated.summary,
                    "target_language": language,
                }
