"""Documents made of rows: corrections, votes of which the majority counts, and pairs of answers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from luthier_feedback.prompts import as_messages, as_text, digest, group_of, key_of
from luthier_feedback.rows import Row

Kind = Literal["corrections", "votes", "pairs"]


@dataclass(frozen=True)
class Document:
    """What a model can learn from, and the rows that say it, in the order of the log.

    Attributes:
        rows: at least one.
        columns: what its kind has besides the prompt: `completion`; and `label`; or `chosen` and `rejected`.
    """

    rows: tuple[Row, ...]
    columns: Mapping[str, str | bool]

    @property
    def text(self) -> str:
        """The prompt."""
        return as_text(self.rows[0].prompt)

    @property
    def group(self) -> str:
        """What must not be split apart."""
        return group_of(self.rows[0].prompt)

    @property
    def source(self) -> str:
        """The application that said it first."""
        return self.rows[0].source

    @property
    def reviewed(self) -> bool:
        """Whether a reviewer passed a row of it."""
        return any(row.state in ("accepted", "edited") for row in self.rows)

    @property
    def digest(self) -> str:
        """Of its content: the same whichever rows say it."""
        return digest(key_of(self.rows[0].prompt), *(str(value) for value in self.columns.values()))

    def is_held_out(self, share: float) -> bool:
        """Whether it is of the share that is never trained on: by the hash of its group alone, so it stays so."""
        place = int.from_bytes(hashlib.sha256(f"held-out\0{self.group}".encode()).digest()[:8], "big")
        return place / 2**64 < share

    def came_since(self, time: datetime) -> bool:
        """Whether anybody said it at that time or later."""
        return any(row.time >= time for row in self.rows)


Made = tuple[list[Document], dict[str, str]]
"""Documents, and of each row that is in none of them why not, by its id."""


def make_documents(rows: Sequence[Row], kind: Kind) -> Made:
    """The documents of a kind, in the order of the log."""
    makers: Mapping[Kind, Callable[[Sequence[Row]], Made]] = {
        "corrections": _corrections,
        "votes": _votes,
        "pairs": _pairs,
    }
    documents, reasons = makers[kind](rows)
    return sorted(documents, key=lambda each: each.rows[0].sequence), reasons


def cap(documents: Sequence[Document], limit: int | None) -> tuple[list[Document], list[Document]]:
    """At most `limit` documents of each source, and the rest: reviewed ones first, then by the hash of the content."""
    if limit is None:
        return list(documents), []
    by_source = defaultdict(list)
    for document in documents:
        by_source[document.source].append(document)
    kept = set()
    for those in by_source.values():
        ranked = sorted(those, key=lambda each: (not each.reviewed, each.digest))
        kept |= {id(document) for document in ranked[:limit]}
    return [each for each in documents if id(each) in kept], [each for each in documents if id(each) not in kept]


def recent(documents: Sequence[Document], held_out: float, since: datetime) -> tuple[list[Document], list[Document]]:
    """All documents but those of the share that is held out which nobody said since a time; and these."""
    old = [each.is_held_out(held_out) and not each.came_since(since) for each in documents]
    parted = list(zip(documents, old, strict=True))
    return [each for each, is_old in parted if not is_old], [each for each, is_old in parted if is_old]


def _corrections(rows: Sequence[Row]) -> Made:
    reasons: dict[str, str] = {}
    same = defaultdict(list)
    for row in rows:
        corrected = _correction(row)
        if corrected:
            same[key_of(row.prompt), corrected].append(row)
        else:
            reasons[row.id] = "no correction" if row.correction is None else "the correction changes nothing"
    documents = [
        Document(tuple(those), {"completion": text, "messages": as_messages(those[0].prompt, text)})
        for (_, text), those in same.items()
    ]
    return documents, reasons


def _correction(row: Row) -> str:
    text = (row.correction or "").strip()
    return "" if text == row.answer.strip() else text


@dataclass(frozen=True)
class Verdict:
    """What the voters say of one answer.

    Attributes:
        rows: of the majority.
        vote: theirs.
        margin: by how many votes.
    """

    rows: tuple[Row, ...]
    vote: int
    margin: int


def resolve(rows: Iterable[Row]) -> tuple[list[Verdict], dict[str, str]]:
    """Count the votes on each answer to each prompt: the last one of each person, and the majority of them.

    A person is one, from whichever sources the votes come; a row without a person is a voter of its own. An answer
    with as many votes for it as against it has no verdict.
    """
    reasons: dict[str, str] = {}
    ballots: dict[tuple[str, str], dict[object, Row]] = defaultdict(dict)
    for row in rows:
        if row.vote is None:
            reasons[row.id] = "no vote"
        elif not row.answer.strip():
            reasons[row.id] = "no answer"
        else:
            voters = ballots[key_of(row.prompt), row.answer.strip()]
            voter = (row.person,) if row.person else row.id
            earlier = voters.pop(voter, None)
            if earlier:
                reasons[earlier.id] = "the same person voted again"
            voters[voter] = row
    verdicts = []
    for voters in ballots.values():
        balance = sum(row.vote or 0 for row in voters.values())
        won = [row for row in voters.values() if (row.vote or 0) * balance > 0]
        lost = {row.id for row in voters.values()} - {row.id for row in won}
        reasons |= dict.fromkeys(lost, "outvoted" if balance else "tied votes")
        if balance:
            verdicts.append(Verdict(tuple(won), 1 if balance > 0 else -1, abs(balance)))
    return verdicts, reasons


def _votes(rows: Sequence[Row]) -> Made:
    verdicts, reasons = resolve(rows)
    documents = [
        Document(each.rows, {"completion": each.rows[0].answer.strip(), "label": each.vote > 0}) for each in verdicts
    ]
    return documents, reasons


def _pairs(rows: Sequence[Row]) -> Made:
    """A correction is preferred to its answer; the best liked answer to each disliked one to the same prompt.

    Where a pair stands against its reverse, the one that more rows say counts; as many leave neither.
    """
    said: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if _correction(row) and row.answer.strip():
            said[key_of(row.prompt), _correction(row), row.answer.strip()].append(row)
    verdicts, reasons = resolve(rows)
    for prompt, liked, disliked in _opposed(verdicts):
        said[prompt, liked.rows[0].answer.strip(), disliked.rows[0].answer.strip()] += [*liked.rows, *disliked.rows]
    documents: list[Document] = []
    contradicted: set[str] = set()
    for (prompt, chosen, rejected), those in said.items():
        distinct = tuple(sorted({row.id: row for row in those}.values(), key=lambda row: row.sequence))
        if len(distinct) > len({row.id for row in said.get((prompt, rejected, chosen), ())}):
            documents.append(Document(distinct, {"chosen": chosen, "rejected": rejected}))
        else:
            contradicted |= {row.id for row in distinct}
    used = {row.id for document in documents for row in document.rows}
    unused = {row.id: reasons.get(row.id, "no answer to set against it") for row in rows if row.id not in used}
    return documents, unused | dict.fromkeys(contradicted - used, "a contrary preference")


def _opposed(verdicts: Sequence[Verdict]) -> Iterable[tuple[str, Verdict, Verdict]]:
    """For each disliked answer to a prompt that also has a liked one: the prompt, the best liked, the disliked."""
    by_prompt = defaultdict(list)
    for verdict in verdicts:
        by_prompt[key_of(verdict.rows[0].prompt)].append(verdict)
    for prompt, those in by_prompt.items():
        liked = [each for each in those if each.vote > 0]
        if liked:
            best = max(liked, key=lambda each: (each.margin, -each.rows[0].sequence))
            yield from ((prompt, best, each) for each in those if each.vote < 0)
