"""The sources: where documents come from. Signatures only; the work is in the modules they import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, MinLen

from luthier import InputError, Location, component
from luthier_text._catalogues import APT_LISTS

if TYPE_CHECKING:
    from luthier import Context, Frame


def _jsonl_files(**_: object) -> tuple[str, ...]:
    from luthier_text._files import JSONL

    return JSONL


@component(files=_jsonl_files)
def jsonl(
    ctx: Context,
    *,
    path: Location,
    text: str = "text",
    identifier: str | None = None,
    origin: str | None = None,
    siblings: str | None = None,
    max_line_megabytes: Annotated[int, Ge(1)] = 256,
) -> Iterator[Frame]:
    """Read documents from JSON Lines, one object a line; bad lines are quarantined, never their neighbours.

    Lines are read as bytes, one at a time, and rows leave in small frames, so memory holds one line and
    one frame. A line is set aside, with its number and the reason, if it is longer than the limit, is not
    UTF-8, is not JSON or not an object, has no text or an empty one, or has a NUL character or a lone
    surrogate in a value that is kept. Blank lines and a byte order mark are skipped.

    Other columns are kept where their values are scalars. The files are read twice: the first pass finds
    each column's type (a column of mixed types becomes text), so that all frames have the same columns.

    Args:
        path: a `.jsonl` or `.jsonl.gz` file, or a directory, of which all such files are read, sorted.
        text: the key of the document's text.
        identifier: the key of the document's id, which must be unique; by default the engine makes ids
            from source and content, and an `id` in the file becomes the column `id_in_file`.
        origin: the key of the document's source; by default the file's path below
            the directory, and `jsonl` for a file that is named by itself.
        siblings: the key that says which documents belong together and must not be split apart.
        max_line_megabytes: lines longer than this are quarantined unread.

    Raises:
        InputError: if nothing is there to read, or no line of it is a document.
    """
    from luthier_text._jsonl import Columns, read_jsonl

    columns = Columns(text, identifier, origin, siblings)
    return read_jsonl(ctx.open(path), ctx, columns, max_line_megabytes << 20)


def _check_files(*, pattern: str, encoding: str, **_: object) -> None:
    from luthier_text._files import check_encoding, check_pattern

    check_pattern(pattern)
    check_encoding(encoding)


def _matching_files(*, pattern: str, **_: object) -> tuple[str, ...]:
    return (pattern,)


@component(check=_check_files, files=_matching_files)
def text_files(
    ctx: Context,
    *,
    path: Location,
    pattern: Annotated[str, MinLen(1)] = "**/*.txt",
    encoding: str = "utf-8",
    unit: Literal["file", "paragraph"] = "file",
) -> Iterator[Frame]:
    """Read plain text files: a document for each file, or for each paragraph.

    A file that is not text in the encoding, or has a NUL character, is quarantined. Empty files give no
    document. Paragraphs of one file share their `group`.

    Args:
        path: a directory, or one file.
        pattern: which files of the directory are read, in glob form; `**` means any depth.
        encoding: how the files are encoded, by its Python name.
        unit: what a document is: the whole file, or a paragraph (text between blank lines).

    Raises:
        InputError: if the pattern leaves the directory, no file matches, none has text, or the encoding is unknown.
    """
    from luthier_text._text_files import read_text_files

    return read_text_files(ctx.open(path), ctx, pattern, encoding, unit)


def _installed_versions(packages: Literal["installed"] | list[str] = "installed", **_: object) -> str:
    from luthier_text._installed import fingerprint

    return fingerprint(packages)


@component(fingerprint=_installed_versions)
def docstrings(
    ctx: Context,
    *,
    packages: Literal["installed"] | Annotated[list[str], MinLen(1)] = "installed",
    per_package: Annotated[int, Ge(1)] | None = None,
    private: bool = False,
    tests: bool = False,
) -> Iterator[Frame]:
    """Read the docstrings of installed Python packages, with `ast`: nothing is imported or run.

    A row stands for a module, class, function or method whose docstring (PEP 257) has a summary of one
    line and a longer body. `text` is the body alone, `summary` the first line, so that a model can learn
    to write the one from the other. Further columns: `package` (the distribution), `name` (qualified),
    `kind`; `source` is the file. The rows of one package share their `group`, so that no split parts them.
    Bodies and summaries are cleaned as `inspect.cleandoc` does it.

    Only files that a distribution's RECORD lists are read, so packages that are installed in editable
    form, whose text changes under their version, are left out. Copies of other projects (directories
    named `_vendor`, `vendor`, `_vendored`, `third_party`) are skipped; what is copied without such a
    name is left to the deduplicating cleaners. Files that do not parse are quarantined.

    Args:
        packages: `installed`, or the names of distributions.
        per_package: at most so many of each distribution, from files picked by the hash of their path.
            This keeps the largest packages from being most of the data, and their files from being
            parsed: 200 MB of source take minutes, 300 rows of each package seconds.
        private: also objects and modules whose name begins with an underscore.
        tests: also modules in directories named `test`, `tests` or `testing`, and `test_*.py`.

    Raises:
        InputError: if a package is not installed, or none has such docstrings.
    """
    from luthier_text._docstrings import read_docstrings

    return read_docstrings(ctx, packages, per_package, private=private, tests=tests)


def _catalogue_files(*, path: Location, languages: list[str], **_: object) -> tuple[str, ...]:
    from luthier_text._catalogues import patterns

    return patterns(path, languages)


def _check_languages(*, languages: list[str], **_: object) -> None:
    twice = [language for language in languages if languages.count(language) > 1]
    if twice:
        raise InputError(f"languages: {twice[0]!r} is named twice", "Name each language once.")


@component(check=_check_languages, files=_catalogue_files)
def debian_descriptions(
    ctx: Context,
    *,
    path: Location = Location(APT_LISTS),
    languages: Annotated[list[str], MinLen(1)] = ["en"],  # noqa: B006
) -> Iterator[Frame]:
    """Read the descriptions of Debian packages from the catalogues that apt keeps, also as pairs of languages.

    `text` is the long description as plain text: lines of a paragraph are joined, lists stay lists. `summary`
    is the short one. Further columns: `language` (of both), `package`, and its `section` (`games`, `python`),
    which only the index of packages says: it is read with English. With a second language a row is a pair:
    `translation`, `summary_translation` and `target_language` are added, joined on the package and the MD5 of
    its description; what is not translated, or only in part, gives no row. With several, a row for each.

    Packages that share a paragraph, in either language, share their `group`: half of all begin as a sibling
    does. apt keeps long descriptions only of the languages that `Acquire::Languages` names. Catalogues may be
    plain, `.gz`, `.xz`, `.bz2`, and, where apt is installed, `.lz4` and `.zst`. Memory: some 2 kB a package.

    Args:
        path: the directory of the catalogues: `*_Packages` and `*_i18n_Translation-*`.
        languages: as apt names them; the first is that of `text`, each other one that of a translation.

    Raises:
        InputError: if there is no catalogue, or none in a language; it says how to have apt fetch it.
    """
    from luthier_text._debian import read_descriptions

    return read_descriptions(ctx, ctx.open(path), languages)


def _gettext_files(**_: object) -> tuple[str, ...]:
    return ("**/*.po", "**/*.mo")


def _gettext_versions(*, packages: list[str] | None, **_: object) -> str:
    from luthier_text._installed import fingerprint

    return fingerprint(packages) if packages else ""


def _check_gettext(*, path: Location | None, packages: list[str] | None, **_: object) -> None:
    if (path is None) == (packages is None):
        raise InputError("gettext reads either a `path` or `packages`", "Give one of them.")


@component(check=_check_gettext, files=_gettext_files, fingerprint=_gettext_versions)
def gettext(
    ctx: Context,
    *,
    path: Location | None = None,
    packages: Annotated[list[str], MinLen(1)] | None = None,
    language: Annotated[str, MinLen(1)] = "en",
    languages: Annotated[list[str], MinLen(1)] | None = None,
) -> Iterator[Frame]:
    """Read translated messages from gettext's `.po` and `.mo` files, as pairs of languages.

    A row is a message (`text`, the msgid) and its `translation` (the msgstr); further columns: `language`,
    `target_language`, `context` (the msgctxt) and `file`. Fuzzy, obsolete and untranslated messages are left
    out, and the log says how many. Of plural forms, the singular is paired with the form for one, the plural
    with the form that most numbers take. A `.mo` beside its `.po` is not read.

    All translations of a message share their `group`. A file that cannot be read is quarantined.

    Args:
        path: a file, or a directory, of which all such files are read.
        packages: the names of installed Python packages, whose files are read instead.
        language: the language of the messages.
        languages: of which translations are read, as directories and headers write them (`fr`, `pt_BR`); all
            by default.

    Raises:
        InputError: if there are no files, or none has a translation into one of the languages.
    """
    from luthier_text._gettext import read_gettext

    return read_gettext(ctx, ctx.open(path) if path else None, packages or [], language, languages)


def _groff_version(**_: object) -> str:
    from luthier_text._groff import version

    return version()


def _page_files(*, sections: list[str], **_: object) -> tuple[str, ...]:
    return tuple(f"man{section}/*" for section in sections)


@component(files=_page_files, fingerprint=_groff_version)
def manual_pages(
    ctx: Context,
    *,
    path: Location = Location("/usr/share/man"),
    sections: Annotated[list[Annotated[str, MinLen(1)]], MinLen(1)] = ["1"],  # noqa: B006
    per_family: Annotated[int, Ge(1)] | None = None,
) -> Iterator[Frame]:
    """Read the manual pages of Unix programs as plain text, rendered by groff.

    A row is a page; further columns: `name`, `section`; `source` is the file. Paragraphs are one line each,
    headers and footers are left out. Links and pages that only name another one give no row. Pages whose names
    begin alike (`git-log`, `git-add`) share their `group`. A page that groff cannot render, or takes half a
    minute for, is quarantined.

    Args:
        path: the directory that holds man1, man2, …; one of a language for its translations.
        sections: of the manual: `1` for commands, `2` and `3` for functions, `5` for files, `8` for the system.
        per_family: at most so many pages that begin alike, picked by the hash of their names: some programs
            have thousands.

    Raises:
        InputError: if there are no such pages, or groff is not installed.
    """
    from luthier_text._manual_pages import read_manual_pages

    return read_manual_pages(ctx, ctx.open(path), sections, per_family)
