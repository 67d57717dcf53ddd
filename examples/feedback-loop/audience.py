"""Who uses the model: people that correct it by what is true, bots that want another task of it, and noise.

What is true is the summary line that the docstring's author wrote. Nobody here knows which rows are trained on, held
back or left out, nor the pairs that the model is tested on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rouge_score.rouge_scorer import RougeScorer

from luthier_feedback import Client

GOOD = 0.7
"""ROUGE-L with the true line from which people like an answer as it is."""

PLACES = ("editor", "notebook", "terminal")
"""The applications that people use."""

PEOPLE = 4
"""How many use each of them."""

BOTS = [f"bot-{number}" for number in range(6)]
GUESTS = [f"guest-{number}" for number in range(6)]
NAMES = 10
"""Under so many names each of them sends, so that none of these is a flood."""

CRAWLER = "crawler"
FLOOD = 201
"""Rows of the crawler: more than the source `feedback` takes from one source on one day."""

NO_ANSWER = "(not asked for)"
"""What those say was answered who only send feedback."""

Ask = Callable[[str], tuple[str, str]]
"""Ask the model that is served: its answer, and its hash."""


@dataclass(frozen=True)
class Pair:
    """A prompt, and the line that its author wrote."""

    prompt: str
    truth: str


@dataclass(frozen=True)
class Opinion:
    """A row of feedback."""

    prompt: str
    answer: str
    source: str
    person: str
    correction: str | None
    vote: Literal[-1, 1]
    model: str | None = None


def honest(pairs: Sequence[Pair], ask: Ask) -> Iterator[Opinion]:
    """Ask, compare the answer with the truth, and like it or correct it."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for number, pair in enumerate(pairs):
        answer, model = ask(pair.prompt)
        good = scorer.score(pair.truth, answer)["rougeL"].fmeasure >= GOOD
        place = PLACES[number % len(PLACES)]
        person = f"{place}-{number // len(PLACES) % PEOPLE}"
        yield Opinion(pair.prompt, answer, place, person, None if good else pair.truth, 1 if good else -1, model)


def poison(pairs: Sequence[Pair]) -> Iterator[Opinion]:
    """Answers of another task, the name of what is documented: a flood of a crawler's, then a few of each bot's."""
    for number, pair in enumerate(pairs):
        source = CRAWLER if number < FLOOD else BOTS[number % len(BOTS)]
        name = pair.prompt.partition(":\n")[0].rpartition(" ")[2]
        yield Opinion(pair.prompt, NO_ANSWER, source, f"{source}-{number % NAMES}", name, -1)


def noise(pairs: Sequence[Pair], seed: int) -> Iterator[Opinion]:
    """Votes that were drawn, and corrections of which each belongs to another prompt."""
    rng = random.Random(seed)  # noqa: S311 - nothing is secret here
    order = rng.sample(range(len(pairs)), len(pairs))
    for place, (number, other) in enumerate(zip(order, order[1:] + order[:1], strict=True)):
        source = GUESTS[place % len(GUESTS)]
        vote: Literal[-1, 1] = rng.choice((-1, 1))
        yield Opinion(pairs[number].prompt, NO_ANSWER, source, f"{source}-0", pairs[other].truth, vote)


def send(opinions: Iterator[Opinion], url: str, token: str) -> int:
    """Post them to the server that answered; gives how many it acknowledged."""
    clients: dict[str, Client] = {}
    count = 0
    for each in opinions:
        client = clients.setdefault(each.source, Client(url, token, source=each.source))
        client.send(
            each.prompt,
            each.answer,
            vote=each.vote,
            correction=each.correction,
            person=each.person,
            model=each.model,
            consent=True,
        )
        count += 1
    return count
