"""Mask what some rules find in the texts of rows: suspects by polars, matches in Python, masks set off by brackets.

A mask is known for one wherever it stands: texts are parted at masks first, and rules only ever see what lies
between. So a mask is never masked again, and masking until no rule finds anything ends, since every round takes
characters away from what lies between. Both together make masking idempotent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import polars as pl
from polars.datatypes import DataTypeClass

from luthier_text._columns import holds_text, require_columns
from luthier_text._template import Template

IDENTIFYING = ("id", "group", "source", "split")
"""What names a row and its place is no text of its own, and other steps and rows refer to it."""
EXCERPT = 50
TABLE = {"id": pl.String, "column": pl.String, "kind": pl.String, "excerpt": pl.String}


class Match(NamedTuple):
    """What a rule found in a text.

    Attributes:
        start: where it begins.
        end: where it ends.
        value: what it says, the same for all spellings: numbers without blanks, addresses in lower case.
    """

    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Rule:
    """A way to find one kind of thing.

    Attributes:
        kind: what it finds, as recipes name it.
        gate: a Rust regular expression that matches in every text in which `find` finds something, and in every
            text that contains such a text: it has no anchors and no look-around.
        find: the matches in a text, in order, that do not overlap.
    """

    kind: str
    gate: str
    find: Callable[[str], Iterable[Match]]


class Piece(NamedTuple):
    """A part of a text: text (`kind` None), a mask (its kind), or a mask that was there before (empty)."""

    text: str
    kind: str | None


class Mask:
    """What stands for a match: a template with `{kind}` and `{number}`, of values in a row.

    Args:
        template: how masks are written; `cleaners` has checked it.
        kinds: all that the component knows, whether they are looked for or not.
    """

    def __init__(self, template: Template, kinds: Sequence[str]) -> None:
        self._template = template
        fields = {"kind": f"(?:{'|'.join(map(label, kinds))})", "number": r"\d+"}
        self._known = re.compile(_filled(template, fields, re.escape))

    def written(self, kind: str, number: int) -> str:
        """The mask of a kind's value with this number."""
        return _filled(self._template, {"kind": label(kind), "number": str(number)}, str)

    def parted(self, text: str) -> list[Piece]:
        """The text, parted at the masks that it has."""
        pieces, position = [], 0
        for mask in self._known.finditer(text):
            pieces += [Piece(text[position : mask.start()], None), Piece(mask.group(), "")]
            position = mask.end()
        return [*pieces, Piece(text[position:], None)]


def label(kind: str) -> str:
    """A kind as masks name it: `private-key` is `PRIVATE_KEY`."""
    return kind.upper().replace("-", "_")


def _filled(template: Template, fields: dict[str, str], literal: Callable[[str], str]) -> str:
    written = literal(template.literals[0])
    for name, text in zip(template.columns, template.literals[1:], strict=True):
        written += fields[name] + literal(text)
    return written


@dataclass
class Masked:
    """A frame whose texts are masked.

    Attributes:
        frame: all rows, in order.
        changed: for each row whether anything was masked.
        found: a row for each mask: `id`, `column`, `kind`, and the masked text around it.
    """

    frame: pl.DataFrame
    changed: pl.Series
    found: pl.DataFrame


def mask_frame(
    frame: pl.DataFrame, columns: Sequence[str] | None, rules: Sequence[Rule], mask: Mask, where: str
) -> Masked:
    """Mask what the rules find in the columns, nested ones (`messages`) too.

    Args:
        frame: the rows.
        columns: those with text; None for all but the identifying ones.
        rules: in the order in which they may claim text.
        mask: how masks are written.
        where: the component and the parameter that names columns, for messages.

    Raises:
        InputError: if a column is not there or holds no text.
    """
    if columns is None:
        columns = [name for name, dtype in frame.schema.items() if name not in IDENTIFYING and holds_text(dtype)]
    require_columns(frame, columns, where, accept="texts")
    columns = [name for name in columns if holds_text(frame.schema[name])]  # Not those without a single value.
    rows = _suspects(frame, columns, rules)
    found: list[tuple[str, str, str, str]] = []
    new: dict[str, dict[int, Any]] = {name: {} for name in columns}
    texts = {name: frame[name].gather(list(rows)).to_list() for name in columns}
    for place, (row, suspected) in enumerate(rows.items()):
        work = _Row(suspected, mask)
        for name in columns:
            value = texts[name][place]
            masked = work.masked(value)
            if masked != value:
                new[name][row] = masked
            found += ((frame["id"][row], name, kind, excerpt) for kind, excerpt in work.taken())
    changed = pl.Series("changed", [False] * frame.height, dtype=pl.Boolean)
    touched = sorted({row for values in new.values() for row in values})
    changed = changed.scatter(touched, [True] * len(touched))
    frame = frame.with_columns(_replaced(frame[name], values) for name, values in new.items())
    return Masked(frame, changed, pl.DataFrame(found, schema=TABLE, orient="row"))


def _suspects(frame: pl.DataFrame, columns: Sequence[str], rules: Sequence[Rule]) -> dict[int, list[Rule]]:
    """The rows in which rules may find something, in order, each with those rules."""
    suspected: dict[int, list[Rule]] = {}
    for rule in rules:
        gates = [_contains(pl.col(name), frame.schema[name], rule.gate).fill_null(value=False) for name in columns]
        hits = frame.select(pl.any_horizontal(gates)).to_series() if gates else pl.Series(dtype=pl.Boolean)
        for row in hits.arg_true():
            suspected.setdefault(row, []).append(rule)
    return dict(sorted(suspected.items()))


def _contains(values: pl.Expr, dtype: pl.DataType | DataTypeClass, pattern: str) -> pl.Expr:
    """Whether any text in the values matches."""
    if isinstance(dtype, pl.List):
        return values.list.eval(_contains(pl.element(), dtype.inner, pattern)).list.any()
    if isinstance(dtype, pl.Array):
        return _contains(values.arr.to_list(), pl.List(dtype.inner), pattern)
    if isinstance(dtype, pl.Struct):
        named = [(part.name, part.dtype) for part in dtype.fields if holds_text(part.dtype)]
        return pl.any_horizontal(
            _contains(values.struct.field(name), inner, pattern).fill_null(value=False) for name, inner in named
        )
    return values.str.contains(pattern)


def _replaced(column: pl.Series, values: dict[int, Any]) -> pl.Series:
    """The column with new values at some rows; of any type, which `scatter` is not."""
    places = list(range(column.len()))
    for number, row in enumerate(values):
        places[row] = column.len() + number
    new = pl.Series(column.name, list(values.values()), dtype=column.dtype)
    return pl.concat([column, new]).gather(places) if values else column


@dataclass
class _Row:
    """The work on one row: its values are numbered over all its columns."""

    rules: Sequence[Rule]
    mask: Mask
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    found: list[tuple[str, str]] = field(default_factory=list)

    def masked(self, value: Any) -> Any:
        """A value of a column with its texts masked, however deep they lie."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.masked(each) for each in value]
        if isinstance(value, dict):
            return {name: self.masked(each) for name, each in value.items()}
        return value

    def taken(self) -> list[tuple[str, str]]:
        """Kind and excerpt of what was masked since the last call."""
        found, self.found = self.found, []
        return found

    def _text(self, text: str) -> str:
        pieces, before = self.mask.parted(text), 0
        while len(pieces) != before:
            before = len(pieces)
            for rule in self.rules:
                pieces = [part for piece in pieces for part in self._applied(rule, piece)]
        masked = "".join(piece.text for piece in pieces)
        start = 0
        for piece in pieces:
            end = start + len(piece.text)
            if piece.kind:
                self.found.append((piece.kind, _excerpt(masked, start, end)))
            start = end
        return masked

    def _applied(self, rule: Rule, piece: Piece) -> Iterator[Piece]:
        """The piece, parted at what the rule finds."""
        position = 0
        for match in rule.find(piece.text) if piece.kind is None else ():
            numbers = self.numbers.setdefault(rule.kind, {})
            number = numbers.setdefault(match.value, len(numbers) + 1)
            yield Piece(piece.text[position : match.start], None)
            yield Piece(self.mask.written(rule.kind, number), rule.kind)
            position = match.end
        yield Piece(piece.text[position:], piece.kind)


def _excerpt(text: str, start: int, end: int) -> str:
    before, after = max(start - EXCERPT, 0), min(end + EXCERPT, len(text))
    shown = " ".join(text[before:after].split())
    return f"{'…' if before else ''}{shown}{'…' if after < len(text) else ''}"
