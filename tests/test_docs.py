"""The docs say what the code does: examples are run, recipes are checked, hooks are documented and used."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from luthier import hookspecs
from luthier.plugins import load_plugins
from luthier.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
HOOKS = [name for name in vars(hookspecs) if name.startswith("luthier_")]


def blocks(language: str) -> list[tuple[str, str]]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        (f"{page.relative_to(ROOT)}#{number}", text)
        for page in PAGES
        for number, text in enumerate(pattern.findall(page.read_text(encoding="utf-8")))
    ]


RECIPES = [(name, text) for name, text in blocks("yaml") if text.startswith("luthier:")]
PLUGINS = [(name, text) for name, text in blocks("python") if "@hookimpl" in text]


def test_there_are_examples_to_check():
    assert RECIPES
    assert PLUGINS


@pytest.mark.parametrize(("name", "text"), RECIPES, ids=[name for name, _ in RECIPES])
def test_every_recipe_in_the_docs_is_valid(name, text, tmp_path):
    recipe = parse_recipe(text, load_plugins(), path=None, directory=tmp_path).checked()
    assert recipe.steps


@pytest.mark.parametrize(("name", "text"), PLUGINS, ids=[name for name, _ in PLUGINS])
def test_every_plugin_in_the_docs_runs(name, text, tmp_path):
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "shout.py").write_text(text)
    rows = [{"text": "A QUIET WORD"}, {"text": "a quiet word"}]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    luthier = [sys.executable, "-c", "from luthier.cli import main; main()"]
    files = ["--input", "data.jsonl", "--output", "out.jsonl"]
    subprocess.run(
        [*luthier, "plugins", "run", "shout", *files, "--max-capitals", "0.2"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    kept = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kept == ["a quiet word"]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_tested_and_used(hook):
    assert inspect.getdoc(getattr(hookspecs, hook))
    assert hook in (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    assert hook in tests
    sources = [*(ROOT / "plugins").glob("*/src/**/*.py"), *(ROOT / "examples").glob("*/src/**/*.py")]
    plugins = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert f"def {hook}(" in plugins


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
