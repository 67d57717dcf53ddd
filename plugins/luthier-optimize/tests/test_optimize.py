"""`luthier optimize` as users call it, on toy models: what it tries, what it chooses, what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import luthier
from luthier.cli import app
from luthier_optimize.outcome import Outcome, Tried
from luthier_optimize.page import write_page

pytestmark = pytest.mark.usefixtures("inside")
PLUGIN = "plugins.d/bigrams.py"
MEASURES = ("load_seconds", "first_token_ms", "prefill", "decode", "peak_megabytes")


def test_every_route_that_the_plugins_give_is_tried(searched):
    assert searched.code == 0, searched.err
    errors = {each["label"]: each["error"] for each in searched.outcome["tried"]}
    gone = (
        "plain",
        "plain padding=none",
        "plain > rounded",
        "plain > rounded grid=coarse",
        "plain padding=none > picky",
        "steady > plain > rounded",
        "steady > plain padding=none > picky",
        "careful max_kl=0.05 > plain",
        "deaf",
        "lopped > plain > rounded",
    )
    assert {label: errors.get(label) for label in gone} == dict.fromkeys(gone, "")
    assert [label for label, error in errors.items() if not error and label not in gone] == []
    for each in (searched.outcome["baseline"], *searched.outcome["tried"]):
        if not each["error"]:
            assert all(each["times"][name] > 0 for name in MEASURES)
            assert each["perplexity"] > 1
            assert each["ratios"]["decode"] > 0
            assert list(each["task"]) == ["vowels"]  # what the recipe's own gate asks for
    assert "vowels" in searched.out
    assert searched.route("plain")["mean_kl"] == pytest.approx(0, abs=1e-9)
    assert searched.route("steady > plain > rounded")["mean_kl"] < searched.route("plain > rounded")["mean_kl"]
    assert searched.route("plain > rounded")["top1"] > searched.route("plain > rounded grid=coarse")["top1"]


def test_what_fails_or_cannot_help_is_listed_with_its_reason_and_the_rest_goes_on(searched):
    reasons = {each["label"]: (each["error"], each["left_out"]) for each in searched.outcome["tried"] if each["error"]}
    assert reasons["plain > broken"] == ("broken: this processor has no such kernel", False)
    assert reasons["plain > broken kind=b"] == ("plain > broken failed", True)
    assert reasons["steady > plain > broken"] == ("plain > broken failed", True)
    assert "it ends every completion at once" in reasons["plain > mute"][0]
    assert searched.route("plain > mute")["mean_kl"] > 1
    assert reasons["odd"][1]
    assert "runtime" in reasons["odd"][0]
    assert reasons["careful max_kl=0.05 > deaf"] == ("as large as deaf without careful", True)
    (pruned,) = [label for label in reasons if label.startswith("sparse > ")]
    assert "without sparse" in reasons[pruned][0]
    for label, (reason, _) in reasons.items():
        assert f"{label}: {reason}" in searched.out.replace("\n", " ")


def test_a_pruned_model_is_held_against_the_one_before_it_was_pruned(searched, bench):
    best = searched.outcome["chosen"]
    [lopped] = [each for each in searched.outcome["tried"] if each["label"].startswith("lopped")]
    assert lopped["label"].endswith(f"> {best}")
    assert lopped["bytes"] < searched.route(best)["bytes"]
    # A fourth of the letters says nothing any more of what follows, which rounding alone does not.
    assert lopped["mean_kl"] > 0.05 > searched.route(best)["mean_kl"]


def test_the_best_within_the_limits_is_chosen_and_its_recipe_runs_as_it_is(searched, bench):
    outcome = searched.outcome
    within = [each for each in outcome["tried"] if not each["error"] and each["mean_kl"] <= 0.05]
    best = min(within, key=lambda each: each["bytes"])
    assert outcome["chosen"] == best["label"] == "plain > rounded"
    assert outcome["chosen"] in outcome["front"]
    latest = luthier.find_run()
    assert latest.data.recipe == "optimize-bigrams"
    assert latest.model().hash == best["model"]
    result = CliRunner().invoke(app, ["run", "optimized/recipe.yaml", "--home", ".luthier", "--plugin", PLUGIN])
    assert result.exit_code == 0, result.stderr
    assert "nothing to do" in result.stdout
    assert "mean_kl" in result.stdout


def test_a_second_search_tries_and_measures_nothing_again(searched, bench, optimize):
    runs = len(list((bench / ".luthier" / "runs").iterdir()))
    times = (bench / "optimized" / "times.json").read_bytes()
    again = optimize("latest:bigrams", "--max-kl", "0.05", "--for", "size")
    assert again.code == 0, again.err
    assert again.outcome == searched.outcome
    assert (bench / "optimized" / "times.json").read_bytes() == times
    assert len(list((bench / ".luthier" / "runs").iterdir())) == runs


def test_an_interrupted_search_takes_the_times_that_are_missing(searched, bench, optimize):
    path = bench / "optimized" / "times.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    gone = f"0/{searched.route('plain')['model']}"
    kept = {name: sample for name, sample in before["samples"].items() if name != gone}
    path.write_text(json.dumps(before | {"samples": kept}), encoding="utf-8")
    again = optimize("latest:bigrams", "--max-kl", "0.05", "--for", "size")
    assert again.code == 0, again.err
    samples = json.loads(path.read_text(encoding="utf-8"))["samples"]
    assert samples.keys() == before["samples"].keys()
    assert {name: sample for name, sample in samples.items() if name != gone} == kept
    assert samples[gone] != before["samples"][gone]


def test_where_nothing_keeps_to_the_limits_the_nearest_is_shown(searched, optimize, bench):
    result = optimize("latest:bigrams", "--max-kl", "0.05", "--max-size", "500B", "--for", "size")
    assert result.code == 4
    assert result.outcome["chosen"] == ""
    assert not (bench / "optimized" / "recipe.yaml").exists()
    near = min((each for each in result.outcome["tried"] if not each["error"]), key=lambda each: each["bytes"])
    assert f"the nearest is {near['label']}" in result.err
    assert f"{near['bytes'] / 1e6:.4g} MB" in result.err
    assert "above 0.0005 MB" in result.err


@pytest.mark.slow
def test_a_gate_of_the_recipes_own_refuses_the_chosen_one(searched, optimize, bench):
    text = (bench / "recipe.yaml").read_text(encoding="utf-8")
    (bench / "strict.yaml").write_text(text.replace("at_least: 0", "at_least: 1000"), encoding="utf-8")
    result = optimize("latest:bigrams", "--data", "strict.yaml", "--only", "deaf", output="strict")
    assert result.code == 4
    assert "a gate of the recipe refuses it: vowels" in result.err
    assert result.outcome["chosen"] == "deaf"
    assert "refuses it" in (bench / "strict" / "optimize.html").read_text(encoding="utf-8")


def test_json_is_the_only_thing_on_stdout(searched, optimize):
    result = optimize("latest:bigrams", "--max-kl", "0.05", "--for", "size", "--json")
    assert json.loads(result.out) == result.outcome | {"version": 1}


def test_the_page_is_one_file_with_every_route(searched, bench):
    page = (bench / "optimized" / "optimize.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "src=" not in page
    for each in searched.outcome["tried"]:
        assert each["label"].replace(">", "&gt;") in page
    assert page.count("<circle") == len([each for each in searched.outcome["tried"] if not each["error"]])
    assert "<h1>latest:bigrams</h1>" in page
    assert "in a process of its own, once. " in page


def test_a_model_that_is_a_directory_is_titled_by_its_name(searched, tmp_path):
    (tmp_path / "mine").mkdir()
    given = str(tmp_path / "mine")
    record = {name: value for name, value in searched.outcome.items() if name != "version"}
    record |= {"model": given, "timing": {**record["timing"], "rounds": 3}, "baseline": Tried(**record["baseline"])}
    record["tried"] = [Tried(**each) for each in record["tried"]]
    page = write_page(Outcome(**record), tmp_path).read_text(encoding="utf-8")
    assert "<h1>mine</h1>" in page
    assert "<title>mine: optimized for size" in page
    assert page.count(given) == 1
    assert "in a process of its own, 3 times, in rounds" in page


# --- what the user got wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "there is no directory nowhere"),
        (["latest:lora"], "has no step 'lora'"),
        (["latest:plain"], "is exported already"),
        (["latest", "--max-size", "many"], "'many' is no size"),
        (["latest", "--only", "rundet"], "no exporter, quantizer or pruner is called 'rundet'"),
        (["latest", "--data", "nowhere.jsonl"], "there is no such recipe, file or directory of texts"),
        (["latest", "--data", "recipe.yaml/jsonl"], "makes no examples"),
        (["latest", "--data", "recipe.yaml/shout"], "has no step 'shout'"),
        (["latest", "--skip", "plain", "--skip", "deaf", "--skip", "odd"], "nothing is left to try"),
        (["plugins.d"], "holds no model"),
    ],
)
def test_what_cannot_work_is_said_before_the_work(searched, optimize, bench, arguments, told):
    runs = len(list((bench / ".luthier" / "runs").iterdir()))
    result = optimize(*arguments, output="untouched")
    assert result.code == 1
    assert told in result.err
    assert not (bench / "untouched").exists()
    assert len(list((bench / ".luthier" / "runs").iterdir())) == runs


def test_a_step_that_gives_no_model_is_told(searched, optimize, bench):
    first = next(run for run in sorted((bench / ".luthier" / "runs").iterdir()) if run.name.endswith("-letters"))
    result = optimize(f"{first.name}:jsonl", output="refused")
    assert result.code == 1
    assert f"{first.name}:jsonl is a dataset, not a model" in result.err


def test_a_recipe_of_the_users_own_is_never_replaced(searched, optimize, bench):
    before = (bench / "recipe.yaml").read_bytes()
    result = optimize("latest:bigrams", output=".")
    assert result.code == 1
    assert "is not of an earlier search" in result.err
    assert (bench / "recipe.yaml").read_bytes() == before


def test_a_directory_has_no_held_out_text_of_its_own(searched, optimize, bench):
    path = luthier.find_model("latest:bigrams").path
    result = optimize(str(path), output="refused")
    assert result.code == 1
    assert "no held-out text" in result.err


def test_too_little_held_out_text_is_refused(searched, optimize, bench):
    lines = (bench / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    Path("few.jsonl").write_text("\n".join(lines[:12]) + "\n", encoding="utf-8")
    result = optimize("latest:bigrams", "--data", "few.jsonl", output="refused")
    assert result.code == 1
    assert "too little held-out text" in result.err
    assert "at least 8" in result.err


def test_a_recipe_that_has_changed_since_the_run_is_told(searched, optimize, bench):
    first = next(run for run in sorted((bench / ".luthier" / "runs").iterdir()) if run.name.endswith("-letters"))
    recipe = bench / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    try:
        recipe.write_text(text.replace("seed: 3", "seed: 4"), encoding="utf-8")
        result = optimize(f"{first.name}:bigrams", output="refused")
    finally:
        recipe.write_text(text, encoding="utf-8")
    assert result.code == 1
    assert "is not what its recipe" in result.err
