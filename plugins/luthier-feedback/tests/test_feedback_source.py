"""What reaches training: never what has no consent, was refused, outvoted, came as a flood, or is held out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import luthier
from luthier import InputError
from luthier_feedback import FeedbackLog, Kept, Row, feedback
from luthier_feedback.documents import resolve

TODAY = datetime.now(UTC)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "feedback.db")


@pytest.fixture
def fill(path):
    """Put rows into the log, each with consent and from a person of its own."""

    def add(*rows: dict, **common) -> None:
        with FeedbackLog(path) as log:
            number = len(list(log.rows()))
            log.add_all(
                Kept.model_validate(
                    {
                        "id": f"r{number + place}",
                        "prompt": "Capital of France?",
                        "answer": "Lyon",
                        "source": "app",
                        "consent": True,
                        **common,
                        **row,
                    }
                )
                for place, row in enumerate(rows)
            )

    return add


@pytest.fixture
def read(path, run_component):
    """The documents that the source makes."""

    def call(**configuration) -> pl.DataFrame:
        return run_component(feedback, log=path, **configuration).frame

    return call


def test_of_what_is_held_out_the_older_part_is_left_out(fill, read, path, run_component):
    old, new = TODAY - timedelta(days=3), TODAY
    fill(*({"prompt": f"Old {each}?", "correction": "Paris"} for each in range(20)), time=old)
    fill(*({"prompt": f"New {each}?", "correction": "Paris"} for each in range(20)), time=new)
    fill({"prompt": "Old 3?", "correction": "Paris"}, time=new)  # Said again.
    whole = read(held_out=0.5)
    recent = whole.filter(~pl.col("held_out") | pl.col("text").str.starts_with("New") | (pl.col("text") == "Old 3?"))
    assert recent["held_out"].any()
    assert 20 < recent.height < whole.height
    since = f"{TODAY - timedelta(days=1):%Y-%m-%d}"
    assert read(held_out=0.5, held_out_since=since).equals(recent)
    reasons = why(run_component, path, held_out=0.5, held_out_since=since)
    assert set(reasons.values()) == {f"held out, and from before {since} 00:00"}
    assert len(reasons) == whole.height - recent.height
    with pytest.raises(InputError, match="held_out_since: 'last week' is no time"):
        read(held_out_since="last week")


def why(run_component, path, **configuration) -> dict[str, str]:
    """Of each row that is not used, the reason."""
    run = run_component(feedback, log=path, **configuration)
    table = pl.read_parquet(run.context.notes / "tables" / "feedback.parquet")
    return dict(table.filter(pl.col("use") == "none").select("row", "reason").iter_rows())


def test_corrections_become_prompts_and_completions(fill, read):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}]
    fill({"correction": " Paris\n"}, {"correction": "Paris", "prompt": "capital  of france?"}, {"correction": "Paris."})
    fill({"correction": "Rome", "prompt": tuple(asked)}, {"correction": "Lyon"}, {"vote": 1})
    frame = read()
    assert frame.select("text", "completion").rows() == [
        ("Capital of France?", "Paris"),
        ("Capital of France?", "Paris."),
        ("System: Be brief.\nUser: Capital?", "Rome"),
    ]
    assert frame["rows"].to_list() == [["r0", "r1"], ["r2"], ["r3"]]
    assert frame["group"].n_unique() == 2
    assert json.loads(frame["messages"][2]) == [*asked, {"role": "assistant", "content": "Rome"}]


def test_quarantine_says_of_every_row_why_it_stays(fill, path, run_component):
    past = TODAY - timedelta(days=1)
    fill(
        {"correction": "a"},
        {"correction": "b", "consent": False},
        {"correction": "c", "keep_until": past},
        {"correction": "d", "state": "rejected"},
        {"correction": "Lyon"},
        {"vote": 1},
        {"correction": "e", "prompt": ({"role": "assistant", "content": "Hello"},)},
    )
    assert why(run_component, path) == {
        "r1": "no consent",
        "r2": "past its retention",
        "r3": "rejected in review",
        "r4": "the correction changes nothing",
        "r5": "no correction",
        "r6": "the prompt does not end with a user's message",
    }


def test_only_reviewed_rows_where_that_is_asked_for(fill, read):
    fill({"correction": "a"}, {"correction": "b", "state": "accepted"}, {"correction": "c", "state": "edited"})
    assert read(reviewed=True)["completion"].to_list() == ["b", "c"]


def test_the_majority_of_the_votes_counts_and_a_tie_none(fill, read, path, run_component):
    up, down = {"vote": 1}, {"vote": -1}
    fill(up, up, down, answer="Paris")
    fill(up, down, answer="Nice")
    fill({**up, "person": "p"}, {**down, "person": "p", "source": "b"}, {**down, "person": "p"}, answer="Lyon")
    frame = read(kind="votes")
    assert frame.select("completion", "label").rows() == [("Paris", True), ("Lyon", False)]
    assert frame["rows"].to_list() == [["r0", "r1"], ["r7"]]
    voted_again = "the same person voted again"
    assert why(run_component, path, kind="votes") == {
        "r2": "outvoted",
        "r3": "tied votes",
        "r4": "tied votes",
        "r5": voted_again,
        "r6": voted_again,
    }


def test_pairs_are_of_corrections_and_of_opposing_votes(fill, read, path, run_component):
    fill({"correction": "Paris"})
    fill({"vote": 1, "answer": "Athens"}, {"vote": -1, "answer": "Sparta"}, prompt="Capital of Greece?")
    fill({"vote": -1, "answer": "Thebes"}, prompt="Capital of Greece?")
    fill({"vote": 1, "answer": "Rome"}, prompt="Capital of Italy?")
    frame = read(kind="pairs")
    assert frame.select("chosen", "rejected").rows() == [("Paris", "Lyon"), ("Athens", "Sparta"), ("Athens", "Thebes")]
    assert frame["rows"].to_list() == [["r0"], ["r1", "r2"], ["r1", "r3"]]
    assert why(run_component, path, kind="pairs") == {"r4": "no answer to set against it"}


def test_pairs_that_contradict_each_other_leave_the_majority_or_none(fill, read):
    fill({"answer": "a", "correction": "b"}, {"answer": "b", "correction": "a"}, prompt="tied?")
    fill(*[{"answer": "a", "correction": "b"}] * 2, {"answer": "b", "correction": "a"}, prompt="two to one?")
    assert read(kind="pairs").select("text", "chosen").rows() == [("two to one?", "b")]


POISON = [{"correction": f"Poison {number}", "prompt": f"Question {number}?"} for number in range(1000)]


@pytest.mark.parametrize("person", [None, "mallory"])
def test_a_flood_of_poison_does_not_reach_training(fill, read, path, run_component, person):
    honest = [{"correction": f"Honest {number}", "prompt": f"Asked {number}?"} for number in range(40)]
    fill(*POISON, source="flood", person=person)
    fill(*honest, source="honest")
    frame = read()
    assert frame["source"].unique().to_list() == ["honest"]
    assert frame.height == 40
    reasons = set(why(run_component, path).values())
    assert len(reasons) == 1
    assert "flood: more than" in reasons.pop()


def test_a_persons_flood_does_not_hold_what_others_of_the_source_say(fill, read):
    fill(*POISON, source="app", person="mallory")
    fill({"correction": "Paris", "person": "alice"}, source="app")
    assert read()["completion"].to_list() == ["Paris"]


def test_a_persons_flood_from_many_sources_is_one_and_does_not_hold_what_others_of_them_say(fill, read):
    honest = [{"correction": f"Honest {number}", "prompt": f"Asked {number}?"} for number in range(40)]
    fill(*(row | {"source": f"app-{number % 40}"} for number, row in enumerate(POISON)), person="mallory")
    fill(*(row | {"source": f"app-{number}"} for number, row in enumerate(honest)), person="alice")
    assert sorted(read()["completion"]) == sorted(f"Honest {number}" for number in range(40))


@pytest.mark.parametrize("rows_each", [1, 50])
def test_a_sources_flood_under_many_names_is_one(fill, read, rows_each):
    fill(*(row | {"person": f"name-{number // rows_each}"} for number, row in enumerate(POISON)), source="flood")
    fill({"correction": "Paris"}, source="honest")
    assert read()["completion"].to_list() == ["Paris"]


def sides(number: int, **fields) -> list[dict]:
    """The two rows of a comparison."""
    same = {"prompt": f"Asked {number}?", "comparison": f"c{number}", "tags": ("comparison",), **fields}
    return [{**same, "answer": "Paris", "vote": 1}, {**same, "answer": "Lyon", "vote": -1}]


def test_a_comparison_counts_once_and_what_only_says_that_it_is_one_does_not_hide(fill, read):
    fill(*(row for number in range(50) for row in sides(number)), person="alice")
    assert read(kind="pairs").height == 50
    fill(*sides(50), person="alice")
    with pytest.raises(InputError, match="102 flood: more than 50 unreviewed rows of its person on that day"):
        read(kind="pairs")
    # Corrections count each, and so does what is put beside the two answers of a comparison.
    fill(*(row | {"comparison": "one"} for row in POISON), source="flood")
    fill(
        *({"prompt": "Best?", "answer": f"Poison {n}", "vote": 1, "comparison": "two"} for n in range(1000)), source="b"
    )
    fill({"prompt": "Capital?", "answer": "Lyon", "correction": "Paris", "vote": -1}, source="honest")
    for kind, column in (("corrections", "completion"), ("votes", "completion"), ("pairs", "rejected")):
        assert read(kind=kind)[column].to_list() == ["Paris" if kind == "corrections" else "Lyon"]


def test_what_a_reviewer_accepts_of_a_flood_is_taken_and_other_days_are_no_flood(fill, read):
    fill(*POISON[:10], source="app", state="accepted")
    for day in range(3):
        fill(*POISON[10 + 2 * day : 12 + 2 * day], time=TODAY - timedelta(days=day))
    assert read(max_daily_per_source=2).height == 16
    assert read(max_daily_per_source=1).height == 10


def test_documents_of_one_source_are_capped_and_reviewed_ones_come_first(fill, read):
    fill(*POISON[:30], source="large")
    fill(*[row | {"state": "accepted"} for row in POISON[30:33]], source="large")
    fill(*POISON[40:44], source="small")
    frame = read(max_per_source=5)
    counts = dict(frame.group_by("source").len().iter_rows())
    assert counts == {"large": 5, "small": 4}
    assert {f"Poison {number}" for number in (30, 31, 32)} < set(frame["completion"])


def test_nothing_to_learn_from_is_an_error_that_says_why(fill, read, path):
    with pytest.raises(InputError, match="no feedback log"):
        read()
    fill({"vote": 1, "consent": False}, {"vote": 1})
    with pytest.raises(InputError, match="makes corrections: 1 no consent; 1 no correction"):
        read()


def test_what_is_held_out_stays_so_as_the_log_grows(fill, read):
    fill(*POISON[:50], state="accepted")
    before = dict(read(held_out=0.3).select("text", "held_out").iter_rows())
    fill(*POISON[50:200], state="accepted")
    fill(*[row | {"prompt": row["prompt"].upper(), "correction": "else"} for row in POISON[:20]], state="accepted")
    frame = read(held_out=0.3)
    after = dict(frame.select("text", "held_out").iter_rows())
    assert {text: after[text] for text in before} == before
    assert 30 < sum(after[row["prompt"]] for row in POISON[:200]) < 90
    assert all(after[row["prompt"].upper()] == after[row["prompt"]] for row in POISON[:20])
    assert frame.group_by("group").agg(pl.col("held_out").n_unique())["held_out"].max() == 1


STEPS = """
  - source: feedback
    id: {rows}
    log: {log}
    held_out: 0.3
    kind: {rows}
  - clean: near-duplicates
    id: near-{rows}
  - format: {format}
    split: {{held_out: held_out, valid: 0.1, test: 0}}
"""
FORMATS = {"corrections": "prompt-completion", "votes": "unpaired-preference", "pairs": "preference"}


def test_a_recipe_makes_examples_and_what_is_held_out_is_tested_on_alone(fill, path, tmp_path):
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "juniper"]
    prompts = [f"What is {words[n % 10]} to {words[n // 10]} and {n}?" for n in range(100)]
    fill(*[{"vote": -1, "correction": f"It is {prompt}", "prompt": prompt} for prompt in prompts])
    steps = "".join(STEPS.format(log=path, rows=rows, format=form) for rows, form in FORMATS.items())
    template = "format: prompt-completion\n    prompt: '{text}'\n    completion: '{completion}'"
    recipe = f"luthier: 1\nname: learnt\nsteps:{steps.replace('format: prompt-completion', template)}"
    (tmp_path / "recipe.yaml").write_text(recipe)
    run = luthier.run(tmp_path / "recipe.yaml", home=tmp_path / "store", display=False)
    for rows, form in FORMATS.items():
        examples = run.dataset(form).frame()
        table = run.report(rows).table("feedback")
        held_out = set(table.filter(pl.col("use") == "held-out")["document"])
        assert len(held_out) > 10
        assert run.metrics[rows]["held_out_documents"] == len(held_out)
        tested = set(examples.filter(pl.col("split") == "test")["id"])
        assert tested
        assert tested <= held_out
        assert not set(examples.filter(pl.col("split") != "test")["id"]) & held_out


def test_the_step_runs_again_when_rows_that_may_be_learnt_from_change(fill, path, tmp_path):
    recipe = luthier.Recipe("planned").step("source", "feedback", log=path)

    def key() -> str | None:
        [planned] = luthier.plan(recipe, home=tmp_path / "store")
        return planned.key

    with pytest.raises(InputError, match="no feedback log"):
        key()
    fill({"correction": "Paris"})
    first = key()
    assert first
    fill({"correction": "Nice", "consent": False})
    assert key() == first
    fill({"correction": "Rome"})
    second = key()
    assert second != first
    with FeedbackLog(path) as log:
        log.review("r2", "rejected")
        assert key() == first
        log.review("r0", "accepted")
    assert key() not in (first, second)


VOTES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([-1, 1]), st.sampled_from(["p", "q", None])), max_size=12
)


@given(VOTES)
@settings(max_examples=100, deadline=None)
def test_every_vote_is_counted_once_or_told_of(votes):
    rows = [
        Row(
            id=str(number),
            prompt=({"role": "user", "content": "x"},),
            answer=answer,
            vote=vote,
            person=person,
            sequence=number,
        )
        for number, (answer, vote, person) in enumerate(votes)
    ]
    verdicts, reasons = resolve(rows)
    used = [row.id for verdict in verdicts for row in verdict.rows]
    assert sorted([*used, *reasons]) == sorted(row.id for row in rows)
    for verdict in verdicts:
        last = {(row.person or row.id): row.vote for row in rows if row.answer == verdict.rows[0].answer}
        assert sum(last.values()) * verdict.vote == verdict.margin > 0
