"""The recipes of examples/purposes: each is planned as it stands, and run with a budget of two steps."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import luthier
from luthier.api import list_runs, open_store
from luthier.errors import GateRefused
from luthier.nodes import parse_yaml

sys.path.append(str(Path(__file__).parent / "benchmarks"))  # Benchmarks are programs, which import their neighbours.
bench = importlib.import_module("bench_quality")
curve = importlib.import_module("compression_curve")
tables = importlib.import_module("tables")

HERE = Path(__file__).parents[1] / "examples" / "purposes"
RECIPES = sorted(HERE.glob("*.yaml"))
SECTIONS = ("games", "science")
PACKAGES = 120
GREATEST = {
    "max_steps": 2,
    "valid_examples": 2,
    "max_examples": 3,
    "max_new_tokens": 4,
    "batch_size": 2,
    "calibration_examples": 8,
    "calibration_tokens": 512,
}
"""What keeps a run short: parameters that are lowered wherever a recipe sets them."""
MORE = {
    "manual-pages": {
        "pages-of-some-length.min_characters": 100,
        "length.min_characters": 100,
        "unlike-pages.threshold": 1.0,
    },
    "from-scratch": {"length.min_characters": 100, "near-duplicates.threshold": 1.0},
    "pruned": {"layers.ratio": 0.5, "vocabulary.ratio": 0.05},
    "pruned-curve": {**{f"cut-to-{depth}.ratio": 0.5 for depth in (27, 20, 15)}, "vocabulary.ratio": 0.05},
    "translation": {"fresh.parameters": "300K"},
    "summaries-from-scratch": {"fresh.parameters": "300K", "rnn-seq2seq.parameters": "300K"},
    "distillation": {"length.min_characters": 100, "near-duplicates.threshold": 1.0},
    "vocabulary": {
        "length.min_characters": 100,
        "near-duplicates.threshold": 1.0,
        "pages-of-some-length.min_characters": 100,
        "unlike-pages.threshold": 1.0,
    },
    "section-heads": {"classification.split": {"valid": 0.2, "test": 0.3}},
    "encoder-transfer": {
        "fresh.parameters": "100K",
        "fresh.tokenizer": {"kind": "word", "size": 256},
        "second-sections.values": list(SECTIONS),
        "second-task.split": {"valid": 0.2, "test": 0.3},
    },
    "layers-or-lora": {
        "docstrings.packages": ["click", "rich", "typer", "pydantic", "filelock", "hypothesis", "fsspec", "jinja2"],
        "docstrings.per_package": 30,
        "docstring.split": {"valid": 0.25, "test": 0.25, "by": "package", "salt": "5"},
    },
    "transfer": {
        "docstrings.packages": ["click", "rich", "typer", "pydantic", "filelock", "hypothesis", "fsspec", "jinja2"],
        "docstrings.per_package": 30,
        "second-task.split": {"valid": 0.25, "test": 0.25, "by": "package", "salt": "5"},
    },
}
PAGE = ".TH {name} 1\n.SH NAME\n{name} \\- does things\n.SH DESCRIPTION\n{name} {words}.\n"


def words(number: int) -> str:
    """Two hundred characters that no other number has, of words in common."""
    said = ("reads", "writes", "plays", "measures", "draws", "sorts", "stars", "maps", "music", "graphs")
    return " ".join(f"{said[(number * step + step) % 10]} {number * step}" for step in range(1, 22))


@pytest.fixture(scope="module")
def catalogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What apt would keep of packages that there are not."""
    directory = tmp_path_factory.mktemp("catalogues")
    kinds: dict[str, list[str]] = {"Packages": [], "Translation-en": [], "Translation-fr": []}
    for number in range(PACKAGES):
        name = f"package-{number}"
        kinds["Packages"].append(f"Package: {name}\nSection: {SECTIONS[number % 2]}\nDescription-md5: {number}\n")
        for language in ("en", "fr"):
            text = f"Description-{language}: {language} sums up {number}\n {language} {words(number)}\n"
            kinds[f"Translation-{language}"].append(f"Package: {name}\nDescription-md5: {number}\n{text}")
    for kind, stanzas in kinds.items():
        (directory / f"main_{kind}").write_text("\n".join(stanzas), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of manual pages."""
    directory = tmp_path_factory.mktemp("man")
    (directory / "man1").mkdir()
    for number in range(60):
        name = f"{'abcdefghij'[number % 10] * 3}{'klmnop'[number // 10]}"
        page = PAGE.format(name=name, words=words(number))
        (directory / "man1" / f"{name}.1.gz").write_bytes(gzip.compress(page.encode()))
    return directory


def small(recipe: Path, model: Path, catalogues: Path, manual: Path) -> dict[str, Any]:
    """The changes that make a recipe run in seconds."""
    changes: dict[str, Any] = {}
    for step in parse_yaml(recipe.read_text(encoding="utf-8"), str(recipe)).to_value()["steps"]:
        name = step.get("id", next(iter(step.values())))
        places = {"debian-descriptions": ("path", catalogues), "manual-pages": ("path", manual)}
        changes |= {f"{name}.{key}": str(value) for key, value in [places.get(step.get("source"), ("", ""))] if key}
        changes |= {f"{name}.{key}": least for key, least in GREATEST.items() if key in step}
        budgets = step.keys() & {"max_minutes", "max_epochs"}
        if budgets:
            changes |= {f"{name}.{budget}": None for budget in budgets} | {f"{name}.max_steps": 2}
        if "model" in step:
            changes[f"{name}.model"] = str(model)
    return changes | MORE.get(recipe.stem, {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from luthier_models.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def run(recipe: Path, changes: dict[str, Any], home: Path) -> luthier.Run:
    """A run that ended, whether its gates, which two steps cannot hold, refused it or not."""
    try:
        return luthier.run(recipe, overrides=changes, home=home, display=False)
    except GateRefused:
        return next(list_runs(open_store(recipe.parent, home)))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_recipe_is_planned_and_says_what_it_shows(recipe: Path, catalogues: Path, manual: Path, home: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    changes = {name: value for name, value in small(recipe, home, catalogues, manual).items() if name.endswith("path")}
    planned = luthier.plan(recipe, overrides=changes, home=home)
    assert [node.node.step.stage.name for node in planned][-1] == "validate"
    assert "\n# Shows: " in text
    assert "\n# Takes: " in text
    assert f"\nname: {recipe.stem}\n" in text
    assert "\nseed: " in text
    # A table is only reproduced by steps; here the same minutes are the question.
    assert ("max_minutes" in text) == (recipe.stem == "layers-or-lora")


def rows_of(recipe: Path) -> list[Any]:
    return [row for row in bench.ROWS if row.path == recipe]


def smoke(recipe: Path) -> Any:
    quick = recipe.stem in ("manual-pages", "debian-sections")
    return pytest.param(recipe, id=recipe.stem, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("recipe", [smoke(each) for each in RECIPES])
@pytest.mark.skipif(not shutil.which("groff"), reason="groff renders the pages: apt-get install groff-base")
def test_a_recipe_runs(recipe: Path, model: Path, catalogues: Path, manual: Path, home: Path) -> None:
    done = run(recipe, small(recipe, model, catalogues, manual), home)
    assert done.state in ("done", "refused")
    assert {step.state for step in done.steps} <= {"done", "refused"}
    for row in rows_of(recipe):
        cells = bench.cells(row, done)
        assert len(cells) == len(bench.HEADINGS)
        assert all(cells[:-2])
    if recipe == curve.RECIPE:
        assert [len(row) for row in curve.rows(done)] == [len(curve.HEADINGS)] * 4


def test_the_table_has_a_row_of_every_recipe_and_names_steps_that_there_are() -> None:
    for recipe in RECIPES:
        assert rows_of(recipe), recipe
        steps = parse_yaml(recipe.read_text(encoding="utf-8"), str(recipe)).to_value()["steps"]
        ids = {step.get("id", next(iter(step.values()))) for step in steps}
        assert {name for row in rows_of(recipe) for name in (row.tuner, row.validator, row.against) if name} <= ids


def test_rows_have_names_of_their_own() -> None:
    names = [(row.purpose, row.model, row.data) for row in bench.ROWS]
    assert len(set(names)) == len(names)


def test_a_recipe_that_fails_leaves_the_rows_of_the_others(tmp_path, monkeypatch, capsys) -> None:
    _, first, second = bench.ROWS[:3]
    page = tmp_path / "page.md"
    page.write_text(f"{bench.TABLE.begin}\n{tables.END}\n", encoding="utf-8")
    (tmp_path / "purposes" / "catalogues").mkdir(parents=True)
    cells = [second.purpose, second.model, second.data, *["-"] * (len(bench.HEADINGS) - 3)]
    monkeypatch.setattr(bench, "EXAMPLES", tmp_path)
    monkeypatch.setattr(bench, "finished", lambda path: 1 / (path != first.path))
    monkeypatch.setattr(bench, "cells", lambda row, run: cells)
    only = [row.path.stem for row in (first, second)]
    monkeypatch.setattr(sys, "argv", ["bench_quality.py", "--only", *only, "--page", str(page)])
    assert bench.main() == 1
    printed = capsys.readouterr()
    assert f"| {second.purpose} |" in printed.out
    assert printed.out.splitlines()[-1] == f"FAILED {Path(first.recipe)}: ZeroDivisionError: division by zero"
    assert "Traceback" in printed.err
    assert dataclasses.replace(bench.TABLE, page=page).rows() == [cells]


def test_a_measured_row_takes_the_place_of_its_last_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    table = dataclasses.replace(bench.TABLE, page=page)
    page.write_text(f"above\n{table.begin}\nNot measured yet.\n{tables.END}\nbelow\n", encoding="utf-8")

    def line(row: Any, value: str) -> list[str]:
        # An empty cell, as where nothing stands beside the metric, must survive being read again.
        return [row.purpose, row.model, row.data, value, *[""] * (len(bench.HEADINGS) - 5), "2026-11-27"]

    first, second, third = bench.ROWS[:3]
    bench.write([line(third, "1.0"), line(first, "1.0")], table)
    bench.write([line(second, "2.0"), line(first, "2.0")], table)
    text = page.read_text(encoding="utf-8")
    assert table.rows() == [line(first, "2.0"), line(second, "2.0"), line(third, "1.0")]
    assert (text.partition(table.begin)[0], text.partition(tables.END)[2]) == ("above\n", "\nbelow\n")
