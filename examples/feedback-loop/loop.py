"""Serve, collect feedback, refine, promote: the whole loop, with users that are simulated and all else as it is.

    python examples/feedback-loop/loop.py --work loop

People ask the champion through the HTTP API and correct it by the lines that authors wrote. After each round
`luthier improve` trains, compares and decides, and the running server follows. A round of poison and one of noise come
between, and a rollback. What is claimed of all this is checked at the end; the exit code is 1 where a claim fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from audience import BOTS, CRAWLER, FLOOD, GUESTS, Pair, honest, noise, poison, send
from claims import Round, all_claims
from serving import COMMAND, Server, Visitors, environment

import luthier
from luthier_feedback import FeedbackLog, rows_used

HERE = Path(__file__).parent
NAME = "summary-lines"
RECIPES = ("first.yaml", "recipe.yaml")
TOLERANCES = ("frozen-answers.rougeL=0.06", "held-back.perplexity=10%")
"""Of some tens of examples a difference is only known so well."""

SEED = 7
VISITORS = 2
QUESTIONS = 8
"""Prompts whose answers are compared before and after the rollback."""


@dataclass(frozen=True)
class Snapshot:
    """A champion as it is on the disk, and as it answers: SHA-256 of its files, and greedy answers."""

    files: dict[str, str]
    answers: list[str]


@dataclass
class Loop:
    """The loop under way.

    Attributes:
        work: the project's directory.
        server: serves its champion.
        visitors: ask all the while.
        pairs: what people know, of which each round takes some; none is used twice.
        rounds: what came of each.
        served: the hashes of the champions in order.
        restored: of each rollback, what the champion was before and is again.
        seconds: from each change of champion until every visitor was answered by it.
    """

    work: Path
    server: Server
    visitors: Visitors
    pairs: list[Pair]
    rounds: list[Round] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    restored: list[tuple[Snapshot, Snapshot]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _snapshots: dict[str, Snapshot] = field(default_factory=dict)
    _questions: list[Pair] = field(default_factory=list)

    def begin(self) -> None:
        """Look at the first champion."""
        self._questions = self._take(QUESTIONS)
        self._follow()

    def people(self, count: int) -> None:
        """A round of people."""
        sent = send(honest(self._take(count), self.server.ask), self.server.url, self.server.token)
        self._improve("people", sent)

    def bots(self, count: int) -> None:
        """A round of bots, after which somebody rejects what they sent."""
        sent = send(poison(self._take(FLOOD + count)), self.server.url, self.server.token)
        self._improve("poison", sent, [CRAWLER, *BOTS])

    def guests(self, count: int) -> None:
        """A round of noise, after which somebody rejects it."""
        sent = send(noise(self._take(count), SEED), self.server.url, self.server.token)
        self._improve("noise", sent, GUESTS)

    def back_and_forth(self) -> None:
        """Roll back to the champion before, and forth again."""
        now = luthier.find_champion(NAME, home=self.work / ".luthier")
        for arguments, why in (((), "to see that it works"), (("--to", str(now.number)), "it worked")):
            call(self.work, "registry", "rollback", NAME, *arguments, "--reason", why)
            champion = luthier.find_champion(NAME, home=self.work / ".luthier")
            before = self._snapshots[champion.hash]
            self._follow()
            self.restored.append((before, self._snapshots[champion.hash]))

    def _improve(self, kind: str, sent: int, rejected: Sequence[str] = ()) -> None:
        """Let the gate decide on what there is now."""
        began = time.monotonic()
        tolerances = [part for each in TOLERANCES for part in ("--tolerance", each)]
        call(self.work, "improve", "recipe.yaml", *tolerances, codes=(0, 4))
        champion = luthier.find_champion(NAME, home=self.work / ".luthier")
        last = champion.history()[-1]
        run = luthier.find_run(last.run, home=self.work / ".luthier")
        self.rounds.append(
            Round(
                kind,
                sent,
                last.event,
                list(last.decision["reasons"]),
                run.id,
                trained=self._trained_on(run),
                wrong=list(rejected),
                champion=champion.hash,
                page=str(last.decision["page"]),
                minutes=(time.monotonic() - began) / 60,
            )
        )
        if champion.hash != self.served[-1]:
            self._follow()
        for source in rejected:
            call(self.work, "feedback", "review", "--source", source, "--reject")

    def _follow(self) -> None:
        """Wait until visitors are answered by the champion that there is now, and look at it."""
        champion = luthier.find_champion(NAME, home=self.work / ".luthier")
        self.seconds.append(self.visitors.await_champion(champion.hash))
        self.served.append(champion.hash)
        path = champion.model(verify=True).path
        files = {
            str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }
        answers = []
        for pair in self._questions:
            answer, model = self.server.ask(pair.prompt)
            assert model == champion.hash, f"{model} answered, and {champion.hash} is champion"
            answers.append(answer)
        self._snapshots[champion.hash] = Snapshot(files, answers)

    def _trained_on(self, run: luthier.Run) -> dict[str, int]:
        """How many rows of each source a run was trained on."""
        used = rows_used(run) or {}
        with FeedbackLog(self.work / "feedback" / "feedback.db", mode="read") as log:
            return dict(Counter(row.source for row in log.rows() if used.get(row.id) == "train"))

    def _take(self, count: int) -> list[Pair]:
        if count > len(self.pairs):
            raise SystemExit(
                f"only {len(self.pairs)} docstrings are left, and {count} are wanted: install more packages"
            )
        taken, self.pairs = self.pairs[:count], self.pairs[count:]
        return taken


def call(work: Path, *arguments: str, codes: Sequence[int] = (0,)) -> None:
    """Do a command in the project, as people type it.

    Raises:
        SystemExit: if it ends with another exit code than one of these.
    """
    print(f"\n$ luthier {' '.join(arguments)}", flush=True)
    ended = subprocess.run([*COMMAND, *arguments], cwd=work, env=environment(), check=False)
    if ended.returncode not in codes:
        raise SystemExit(f"luthier {arguments[0]} ended with the exit code {ended.returncode}")


def begin(work: Path) -> luthier.Run:
    """Make the project: the recipes, and the first champion.

    Raises:
        SystemExit: if there is one already.
    """
    if (work / ".luthier").exists():
        raise SystemExit(f"{work} holds a loop already: remove it, or name another directory with --work")
    work.mkdir(parents=True, exist_ok=True)
    for name in RECIPES:
        (work / name).write_text((HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    call(work, "run", "first.yaml")
    call(work, "registry", "promote", "latest", "--as", NAME, "--reason", "the model before any feedback")
    return luthier.find_run("latest", home=work / ".luthier")


def known_pairs(run: luthier.Run) -> list[Pair]:
    """What people know: the pairs of the packages that no test set is of, shuffled."""
    rows = run.dataset("pairs").frame("train").sort("id").select("prompt", "completion").iter_rows()
    pairs = [Pair(prompt, truth) for prompt, truth in rows]
    random.Random(SEED).shuffle(pairs)  # noqa: S311 - nothing is secret here
    return pairs


def main() -> int:
    """Do the whole loop; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("loop"), help="a new directory  [default: loop]")
    parser.add_argument(
        "--rounds", type=int, nargs=3, default=(24, 48, 160), metavar="N", help="what people send in each round"
    )
    parser.add_argument(
        "--wrong", type=int, default=60, metavar="N", help="what bots, and guests, send besides a flood"
    )
    options = parser.parse_args()
    work = options.work.absolute()
    began = time.monotonic()
    first = begin(work)
    pairs = known_pairs(first)
    prompts = [pairs.pop().prompt for _ in range(VISITORS)]
    with closing(Server(work)) as server, closing(Visitors(server, prompts)) as visitors:
        loop = Loop(work, server, visitors, pairs)
        loop.begin()
        loop.people(options.rounds[0])
        loop.people(options.rounds[1])
        loop.back_and_forth()
        loop.bots(options.wrong)
        loop.guests(options.wrong)
        loop.people(options.rounds[2])
    claims = all_claims(first, loop, home=work / ".luthier")
    told = {
        "minutes": (time.monotonic() - began) / 60,
        "claims": [asdict(claim) for claim in claims],
        "rounds": [asdict(each) for each in loop.rounds],
        "switch_seconds": loop.seconds,
        "requests": {"answered": visitors.answered, "dropped": visitors.dropped},
    }
    (work / "loop.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print()
    for claim in claims:
        print(f"{'✓' if claim.holds else '✗'} {claim.text}: {claim.numbers}")
    print(f"{told['minutes']:.1f} minutes; the rounds: {loop.rounds[-1].page}")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
