"""Docstrings of installed packages, read with `ast`."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Literal, NamedTuple

import polars as pl

from luthier import Context, InputError
from luthier_text._installed import SourceFile, distributions, source_files

SCHEMA = {
    "text": pl.String,
    "summary": pl.String,
    "package": pl.String,
    "name": pl.String,
    "kind": pl.String,
    "source": pl.String,
}
WHITESPACE = re.compile(r"\s+")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Row(NamedTuple):
    """One documented object; the fields are the columns of the frame."""

    text: str
    summary: str
    package: str
    name: str
    kind: str
    source: str


def read_docstrings(
    ctx: Context,
    packages: Literal["installed"] | list[str],
    per_package: int | None,
    *,
    private: bool,
    tests: bool,
) -> Iterator[pl.DataFrame]:
    """One frame for each distribution that has docstrings, by name; see `sources.docstrings`.

    Raises:
        InputError: if a package is not installed, or none has such docstrings.
    """
    chosen = distributions(packages)
    total = 0
    for done, (name, distribution) in enumerate(chosen.items(), 1):
        rows = _rows_of(ctx, name, distribution, per_package, private=private, tests=tests)
        if rows:
            yield pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(group=pl.col("package"))
            total += len(rows)
        ctx.progress(done, len(chosen), documents=total)
    if not total:
        raise InputError(
            f"no docstring with a summary line and a body in {', '.join(chosen)}",
            "Name other packages, or `installed`.",
        )


def _rows_of(
    ctx: Context, package: str, distribution: metadata.Distribution, limit: int | None, *, private: bool, tests: bool
) -> list[Row]:
    files = source_files(distribution, private=private, tests=tests)
    if limit is not None:
        # By hash, so that a limited sample is spread over the package and is the same everywhere.
        files.sort(key=lambda file: hashlib.sha256(file.relative.as_posix().encode()).digest())
    picked: list[tuple[SourceFile, list[Row]]] = []
    found = 0
    for file in files:
        rows = read_file(ctx, package, file, private=private)
        picked.append((file, rows if limit is None else rows[: limit - found]))
        found += len(picked[-1][1])
        if limit is not None and found >= limit:
            break
    picked.sort(key=lambda pair: pair[0].relative)
    return [row for _, rows in picked for row in rows]


def read_file(ctx: Context, package: str, file: SourceFile, *, private: bool) -> list[Row]:
    """The rows of one file in the order of its text; a file that does not parse is quarantined."""
    where = file.relative.as_posix()
    try:
        content = file.path.read_bytes()
        # Half of all files have no docstring at all, and parsing is what costs.
        if b'"""' not in content and b"'''" not in content:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(content)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        ctx.quarantine("", f"not readable as Python: {error}", where=where)
        return []
    rows = []
    for node, name in documented(tree, file.module, private=private):
        pair = split_docstring(_docstring(node))
        if pair:
            summary, body = pair
            rows.append(Row(body, summary, package, name, _kind(node), where))
    return rows


def documented(tree: ast.Module, module: str, *, private: bool) -> Iterator[tuple[Documented, str]]:
    """The module, its classes, functions and methods, with qualified names; not what functions define within."""
    yield tree, module
    pending: list[tuple[ast.stmt, str]] = [(node, module) for node in reversed(tree.body)]
    while pending:
        node, parent = pending.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not private and node.name.startswith("_"):
                continue
            name = f"{parent}.{node.name}"
            yield node, name
            inner = node.body if isinstance(node, ast.ClassDef) else []
        else:
            name, inner = parent, _branches(node)
        pending += [(child, name) for child in reversed(inner)]


def _branches(node: ast.stmt) -> list[ast.stmt]:
    # Definitions also stand under `if`, `try` and `with` at module and class level.
    if isinstance(node, ast.If):
        return [*node.body, *node.orelse]
    if isinstance(node, ast.Try):
        return [
            *node.body,
            *(child for handler in node.handlers for child in handler.body),
            *node.orelse,
            *node.finalbody,
        ]
    return list(node.body) if isinstance(node, ast.With) else []


def _docstring(node: Documented) -> str:
    # `ast.get_docstring` cleans with inspect.cleandoc, the form that `help` shows.
    return ast.get_docstring(node, clean=True) or ""


def split_docstring(docstring: str) -> tuple[str, str] | None:
    """The summary line and the body, or None where there is no such pair.

    The summary is the first paragraph, of one line, with at least three words; the body is what follows,
    longer than the summary. Text that UTF-8 cannot carry, or with a NUL, gives none.
    """
    head, _, rest = docstring.strip().partition("\n")
    if not rest.startswith("\n") and rest.strip() and rest.partition("\n")[0].strip():
        return None
    summary, body = WHITESPACE.sub(" ", head).strip(), inspect.cleandoc("\n" + rest).strip()
    if len(summary.split()) < 3 or len(body) <= len(summary) or not _storable(docstring):
        return None
    return summary, body


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _kind(node: Documented) -> str:
    if isinstance(node, ast.Module):
        return "module"
    return "class" if isinstance(node, ast.ClassDef) else "function"
