"""The recipes of bench_compression are planned: what a plugin no longer knows shows before hours of work."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import pytest

import luthier

sys.path.append(str(Path(__file__).parent / "benchmarks"))  # Benchmarks are programs, which import their neighbours.
models = importlib.import_module("compression_models")
bench = importlib.import_module("bench_compression")


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory):
    page = tmp_path_factory.mktemp("page") / "page.md"
    page.write_text(bench.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    return bench.Bench(argparse.Namespace(only=models.runnable(), texts=8, prompts=8, page=page))


@pytest.mark.parametrize("name", [name for name, each in models.VARIANTS.items() if each.recipe is None])
def test_a_recipe_is_planned_with_what_measures_its_model(name, measuring, tmp_path):
    if name not in models.runnable():
        pytest.skip("llama.cpp is not installed")
    for kind in ("Packages", "i18n_Translation-en"):
        (tmp_path / f"main_{kind}").touch()
    variant = models.VARIANTS[name]
    recipe = models.source(str(tmp_path), 2)
    variant.add(recipe)
    measuring.measure_loss(recipe, variant.step)
    if variant is not models.BASELINE:
        measuring.measure_task(recipe, variant.step)
    planned = luthier.plan(
        recipe, overrides={"debian-descriptions.path": str(tmp_path)}, plugins=[models.MOVED], home=tmp_path / "home"
    )
    found = [node.node.step.id for node in planned]
    assert variant.step in found
    assert found[-1] in ("rouge", "perplexity")


def test_what_is_judged_is_written_beside_its_target(measuring):
    measuring.judge(models.INT8, "megabytes", 151.0, 150, at_most=True)
    measuring.judge(models.INT8, "megabytes", 149.0, 150, at_most=True)
    measuring.judge(models.INT4, "decode", float("nan"), 1.2)
    assert [each.reached for each in measuring.outcomes] == [False, True, False]
    rows = {row[0]: row[1:4] for row in measuring.targets.rows()}
    assert rows["int8: megabytes"] == ["149", "at most 150", "yes"]
    assert rows["int4: decode"] == ["nan", "at least 1.2", "no"]


def test_a_part_that_fails_leaves_the_summary_of_the_others(measuring, tmp_path, monkeypatch, capsys):
    (tmp_path / "catalogues").mkdir()
    monkeypatch.setattr(bench, "PURPOSES", tmp_path)
    monkeypatch.setattr(bench.Bench, "loss", lambda self: {}["kl"])
    monkeypatch.setattr(bench.Bench, "task", lambda self: self.judge(models.INT4, "prompts of the task", 1000, 1000))
    page = str(measuring.options.page)
    monkeypatch.setattr(sys, "argv", ["bench_compression.py", "--parts", "loss", "task", "--page", page])
    assert bench.main() == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-2:] == [
        "reached int4: prompts of the task: 1,000 (target: at least 1,000)",
        "FAILED loss: KeyError: 'kl'",
    ]
    assert "Traceback" in printed.err
