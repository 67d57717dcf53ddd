"""examples/feedback-loop: what people correct makes the served model better, and what is wrong is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import luthier
from luthier.nodes import parse_yaml

HERE = Path(__file__).parents[1] / "examples" / "feedback-loop"
NAME = "summary-lines"


@pytest.fixture
def example(monkeypatch):
    """The modules of the example, as its script sees them."""
    monkeypatch.syspath_prepend(str(HERE))
    import audience

    return audience


def steps(name):
    return parse_yaml((HERE / name).read_text(encoding="utf-8"), name).to_value()["steps"]


def test_the_first_champion_is_measured_as_those_that_follow():
    first, later = steps("first.yaml"), steps("recipe.yaml")
    shared = [step.get("id", next(iter(step.values()))) for step in first].index("pairs") + 1
    assert first[:shared] == later[:shared]
    measures = {step["id"]: step for step in later if "validate" in step}
    for step in (each for each in first if "validate" in each):
        asked = {key: value for key, value in measures[step["id"]].items() if key not in ("gate", "subjects")}
        assert {key: value for key, value in step.items() if key != "subjects"} == asked
    # What is only plotted has no gate, and is of a split that nothing else reads.
    assert {step["id"] for step in measures.values() if step.get("split") == "valid"} == {"unseen", "unseen-answers"}
    assert not any("gate" in measures[name] for name in ("unseen", "unseen-answers"))
    planned = luthier.plan(HERE / "first.yaml", home=HERE / "none")
    assert planned[-1].node.step.id == "unseen-answers"


def test_people_say_the_truth_and_the_others_do_not(example):
    pairs = [example.Pair(f"Write the one-line summary of a.b{n}:\ntext", f"Return number {n}.") for n in range(260)]
    answers = {pairs[0].prompt: "Return number 0.", pairs[1].prompt: "It is a function."}
    liked, corrected = example.honest(pairs[:2], lambda prompt: (answers[prompt], "hash"))
    assert (liked.vote, liked.correction, liked.model) == (1, None, "hash")
    assert (corrected.vote, corrected.correction, corrected.answer) == (-1, "Return number 1.", "It is a function.")
    poison = list(example.poison(pairs))
    assert [each.correction for each in poison] == [f"a.b{n}" for n in range(260)]
    counts = Counter(each.source for each in poison)
    assert counts.pop("crawler") == example.FLOOD
    assert set(counts) == set(example.BOTS)
    assert max(Counter(each.person for each in poison).values()) <= 50  # None is a flood of a single person.
    noise = list(example.noise(pairs[:40], 7))
    truth = {pair.prompt: pair.truth for pair in pairs}
    assert all(each.correction != truth[each.prompt] for each in noise)
    assert Counter(each.correction for each in noise) == Counter(pair.truth for pair in pairs[:40])
    assert {each.vote for each in noise} == {-1, 1}


@pytest.mark.slow
def test_the_loop_closes(tmp_path):
    """A real model, the real server, real rounds; about twenty minutes."""
    work = tmp_path / "loop"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
    done = subprocess.run(
        [sys.executable, str(HERE / "loop.py"), "--work", str(work)],
        env={**environment, "LUTHIER_DISABLE": "mlflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads((work / "loop.json").read_text(encoding="utf-8")) if done.returncode in (0, 1) else {}
    failed = [claim for claim in told.get("claims", []) if not claim["holds"]]
    assert (done.returncode, failed) == (0, []), done.stdout[-4000:] + done.stderr[-4000:]

    # What the script claims, seen from outside: in the registry, its runs and the page.
    history = luthier.find_champion(NAME, home=work / ".luthier").history()
    people, back, wrong = ["promoted"] * 2, ["rolled back"] * 2, ["refused"] * 2
    assert [entry.event for entry in history] == ["promoted", *people, *back, *wrong, "promoted"]
    assert [history[place].artifact for place in (3, 4)] == [history[place].artifact for place in (1, 2)]
    champions = [history[place].run for place in (0, 1, 2, 7)]
    measured = [luthier.find_run(run, home=work / ".luthier").metrics for run in champions]
    losses = [each["unseen"]["perplexity"] for each in measured]
    overlaps = [each["unseen-answers"]["rougeL"] for each in measured]
    assert losses == sorted(losses, reverse=True)
    # Of 40 answers, ROUGE-L tells the first champion from the last, and not each from the one before.
    assert overlaps[-1] > overlaps[0]
    assert told["requests"]["answered"] > 20
    assert told["requests"]["dropped"] == []
    page = Path(history[-1].decision["page"]).read_text(encoding="utf-8")
    drawn = re.findall(r'<svg class="curve rounds".*?</svg>', page)
    assert len(drawn) == 2
    assert all(each.count("<circle") == 12 and each.count(" cross") == 4 for each in drawn)
    log = (work / "server.log").read_text(encoding="utf-8")
    assert log.count("the champion is now") == 5
