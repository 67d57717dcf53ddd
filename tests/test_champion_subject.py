"""The subject `champion`: measured on the same prompts, cached by its content, and skipped while there is none."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import luthier
from luthier import InputError
from luthier.cli import app
from luthier.errors import GateRefused
from luthier.events import GateDecided

GATE = "      accuracy: {at_least: base + 0.5, confidence: 0.95}\n"
ON_CHAMPION = "      accuracy: {at_least: champion + 0.0, confidence: 0.95}\n"
BETTER = {"accuracy.gate": {"accuracy": {"at_least": "champion + 0.1"}}}


@pytest.fixture
def gated(project):
    """The recipe's gate compares with the champion."""
    recipe = project / "recipe.yaml"
    assert GATE in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(GATE, ON_CHAMPION))
    return project


def rows(**options):
    return {name: told for _, name, _, told in luthier.plan("recipe.yaml", **options).rows()}


def test_without_a_champion_the_bound_is_skipped_and_said_so_then_it_is_judged(gated, run):
    assert "accuracy@champion" not in rows()
    said = CliRunner().invoke(app, ["plan", "recipe.yaml"]).output
    assert "accuracy: accuracy at least champion (95% confidence) is skipped: there is no champion 'toys' yet" in said
    [skipped] = json.loads(CliRunner().invoke(app, ["plan", "recipe.yaml", "--json"]).output)["skipped"]
    assert (skipped["step"], skipped["metric"]) == ("accuracy", "accuracy")

    heard = []
    first = run(listen=heard.append)
    [decided] = [event for event in heard if isinstance(event, GateDecided) and event.subject == "champion"]
    assert (decided.passed, decided.skipped) == (True, True)
    [gate, _] = first.gates
    assert (gate.verdict, gate.value) == ("skipped", 1.0)
    assert "is skipped: there is no champion 'toys' yet" in gate.reason
    assert first.data.champion == ""
    assert "1 of 1 passed, 1 skipped" in CliRunner().invoke(app, ["runs", "list"]).output

    # The champion is measured where another model is to be compared with it; what is known of it is taken.
    luthier.promote(first)
    told = rows(overrides={"freeze.lossy": True})
    assert told["accuracy@champion"] == "cached"
    with pytest.raises(GateRefused, match=r"at least champion .* the interval of its difference from champion is -1"):
        run(overrides={"freeze.lossy": True})
    refused = luthier.find_run()
    assert refused.data.champion == first.model().hash
    assert refused.step("accuracy").metrics["champion.accuracy"] == 1.0
    assert refused.interval("accuracy", "accuracy", "champion") == (-1.0, -1.0)
    [entry] = [node for node in refused.step("accuracy").nodes if node.subject == "champion"]
    assert entry.ingredients["inputs"]["subject"] == first.model().hash

    # With other data the champion is measured anew, on the very prompts of the candidate.
    other = run(overrides={"longer.at_least": 12})
    assert [gate.verdict for gate in other.gates] == ["passed", "passed"]
    mine, theirs = (other.report("accuracy", subject).metric_records()[0] for subject in ("candidate", "champion"))
    assert len(mine["per_example"]) == len(theirs["per_example"]) > 0

    # The champion is not asked to beat itself.
    again = run(overrides=BETTER)
    assert "is skipped: this model is the champion 'toys' itself" in again.gates[0].reason
    assert run(overrides=BETTER).id == again.id


def test_what_is_not_to_be_compared_is_not_measured(project, run):
    luthier.promote(run())
    assert rows()["accuracy@champion"] == "cached"
    assert "accuracy@champion" not in rows(overrides={"accuracy.subjects": ["candidate", "base"]})
    listed = rows(
        overrides={"accuracy.subjects": ["candidate", "champion"], "accuracy.gate": {"accuracy": {"at_least": 0}}}
    )
    assert "accuracy@champion" in listed
    assert "accuracy@base" not in listed
    other = {"accuracy.subjects": ["candidate", "base"], "accuracy.gate": {"accuracy": {"at_least": "champion"}}}
    assert "accuracy@champion" in rows(overrides=other)  # The gate needs it all the same.
    with pytest.raises(InputError, match="compares with champion, which validate:agreement is not run on here"):
        rows(overrides={"agreement.gate": {"agreement": {"at_least": "champion"}}})


def test_a_damaged_champion_lets_no_model_pass_and_the_recipe_can_make_it_again(gated, run, damage):
    first = run()
    luthier.promote(first)
    damage(first.model().hash)
    with pytest.raises(InputError, match=r"the model of the champion 'toys'.* is damaged") as caught:
        run(overrides={"longer.at_least": 12})  # Of the right size: it is found when it is read.
    assert "luthier registry rollback toys" in caught.value.remedy
    with pytest.raises(InputError, match=r"the model of the champion 'toys'.* is damaged"):
        luthier.plan("recipe.yaml")
    without = {"accuracy.gate": {"accuracy": {"at_least": 0.5}}}
    assert "accuracy@champion" not in rows(overrides=without)
    run(until="freeze")
    assert luthier.find_model("champion").hash == first.model().hash
    assert rows()["accuracy@champion"] == "cached"


def test_a_champion_of_another_kind_is_loaded_by_the_runtime_of_that_kind(gated, run):
    recipe = gated / "recipe.yaml"
    whole = recipe.read_text()
    recipe.write_text(whole[: whole.index("  - export: freeze")])
    luthier.promote(run())
    assert luthier.find_champion().entry.kind == "model"
    recipe.write_text(whole.replace("    split: train\n", "    split: train\n    runtime: onnxruntime-genai\n"))
    done = run()
    assert [gate.verdict for gate in done.gates] == ["passed", "passed"]
    [entry] = [node for node in done.step("accuracy").nodes if node.subject == "champion"]
    assert entry.ingredients["runtimes"]["subject"]["component"] == "transformers"
