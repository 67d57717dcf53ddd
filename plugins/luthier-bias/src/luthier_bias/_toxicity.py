"""The toxicity filter: a gate in Rust, then the exact rules on what it lets through."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from luthier import Context, InputError
from luthier_bias._context import reason_to_keep
from luthier_bias._fold import Token, folded, spelled_out, substituted, tokens
from luthier_bias._lexicon import SEVERITIES, Lexicon, Rule, read_lexicon

EXCERPT = 50
TABLE = {
    "id": pl.String,
    "source": pl.String,
    "term": pl.String,
    "category": pl.String,
    "severity": pl.String,
    "decision": pl.String,
    "excerpt": pl.String,
}
# What ends a sentence or clause also ends a pattern of several words.
CLAUSE_ENDS = frozenset('.!?;:,()[]{}\n"')


@dataclass(frozen=True)
class Settings:
    """The configuration; see `luthier_bias.toxicity`."""

    columns: tuple[str, ...]
    min_severity: str
    max_severity: str
    categories: tuple[str, ...]
    action: str


class Match(NamedTuple):
    """A term in a text.

    Attributes:
        rule: the rule that found it.
        term: the folded words.
        reason: why it does not count (`mention`, `technical`), or empty.
        excerpt: the text around it.
    """

    rule: Rule
    term: str
    reason: str
    excerpt: str


def filter_frame(frame: pl.DataFrame, ctx: Context, path: Path, settings: Settings) -> pl.DataFrame:
    """The frame without its toxic documents, or with the column `toxicity`; see `luthier_bias.toxicity`."""
    lexicon = select(read_lexicon(path), settings, str(path))
    worst: dict[int, str] = {}
    found: list[tuple[str, ...]] = []
    outcome = "dropped" if settings.action == "drop" else "flagged"
    for row, column in suspects(frame, lexicon, settings.columns):
        for match in matches(frame[column][row], lexicon):
            decision = f"kept: {match.reason}" if match.reason else outcome
            if not match.reason:
                worst[row] = max(worst.get(row, "low"), match.rule.severity, key=SEVERITIES.index)
            identity = (frame["id"][row], frame["source"][row])
            found.append((*identity, match.term, match.rule.category, match.rule.severity, decision, match.excerpt))
    table = pl.DataFrame(found, schema=TABLE, orient="row")
    ctx.table("toxicity", table)
    _count(ctx, table, lexicon, outcome, len(worst))
    severities = pl.Series("toxicity", [worst.get(row) for row in range(frame.height)], dtype=pl.String)
    return frame.filter(severities.is_null()) if settings.action == "drop" else frame.with_columns(severities)


def select(lexicon: Lexicon, settings: Settings, where: str) -> Lexicon:
    """The rules within the severities and categories.

    Raises:
        InputError: if a category is not in the lexicon, or the severities leave nothing.
    """
    unknown = sorted(set(settings.categories) - set(lexicon.categories))
    if unknown:
        raise InputError(f"{where} has no category {unknown[0]!r}", f"It has: {', '.join(lexicon.categories)}.")
    wanted = SEVERITIES[SEVERITIES.index(settings.min_severity) : SEVERITIES.index(settings.max_severity) + 1]
    rules = tuple(
        rule
        for rule in lexicon.rules
        if rule.severity in wanted and (not settings.categories or rule.category in settings.categories)
    )
    if not rules:
        raise InputError(
            f"{where} has no entry from severity {settings.min_severity!r} to {settings.max_severity!r}",
            f"Severities go up: {', '.join(SEVERITIES)}.",
        )
    return Lexicon(rules, lexicon.allowed)


def suspects(frame: pl.DataFrame, lexicon: Lexicon, columns: tuple[str, ...]) -> list[tuple[int, str]]:
    """The rows and columns that may have a match; none that has one is missing."""
    pattern = "|".join(rule.gate for rule in lexicon.rules)
    pairs = []
    for column in columns:
        if column not in frame.columns:
            raise InputError(f"columns: the data has no column {column!r}", f"It has: {', '.join(frame.columns)}.")
        plain = folded(pl.col(column))
        forms = frame.select(plain=plain, substituted=substituted(plain), spelled=spelled_out(plain))
        hit = forms.select(
            pl.col("plain").str.contains(pattern) | pl.col("substituted").str.contains(pattern) | pl.col("spelled")
        ).to_series()
        pairs += [(row, column) for row in hit.arg_true()]
    return sorted(pairs, key=lambda pair: (pair[0], columns.index(pair[1])))


def matches(text: str, lexicon: Lexicon) -> list[Match]:
    """All matches in a text, rule by rule, with the reasons that keep some from counting."""
    words = tokens(text)
    joined, starts = _join(text, words)
    found = []
    for rule in lexicon.rules:
        for match in rule.exact.finditer(joined):
            first = bisect.bisect_right(starts, match.start()) - 1
            last = bisect.bisect_left(starts, match.end()) - 1
            if match.group() in lexicon.allowed:
                continue
            reason = reason_to_keep(text, words, first, last)
            found.append(Match(rule, match.group(), reason, _excerpt(text, words[first].start, words[last].end)))
    return found


def _join(text: str, words: list[Token]) -> tuple[str, list[int]]:
    """The folded words with a blank between, or a line end where a clause ends; and where each begins."""
    pieces: list[str] = []
    starts: list[int] = []
    length = previous = 0
    for word in words:
        if starts:
            pieces.append("\n" if CLAUSE_ENDS.intersection(text[previous : word.start]) else " ")
            length += 1
        starts.append(length)
        pieces.append(word.folded)
        length += len(word.folded)
        previous = word.end
    return "".join(pieces), starts


def _excerpt(text: str, start: int, end: int) -> str:
    before, after = max(start - EXCERPT, 0), min(end + EXCERPT, len(text))
    shown = " ".join(text[before:after].split())
    return f"{'…' if before else ''}{shown}{'…' if after < len(text) else ''}"


def _count(ctx: Context, table: pl.DataFrame, lexicon: Lexicon, outcome: str, documents: int) -> None:
    # Every metric in every shard, so that the sums over shards are complete.
    ctx.metric(f"documents_{outcome}", documents)
    counted = table.filter(pl.col("decision") == outcome)
    for category in lexicon.categories:
        ctx.metric(f"matches_{category}", counted.filter(pl.col("category") == category).height)
    ctx.metric("matches_kept_in_context", table.height - counted.height)
