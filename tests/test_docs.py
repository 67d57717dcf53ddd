"""The docs say what the code does: examples are run, recipes are checked, hooks are documented and used."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from luthier import hookspecs
from luthier.cli import app
from luthier.plugins import load_plugins
from luthier.recipe import parse_recipe
from luthier.testing.public_interface import PUBLIC_MODULES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
SPECIFICATION = importlib.util.spec_from_file_location("docs_api", ROOT / "docs" / "api.py")
api = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(api)
PUBLIC = {name: each for _, section in api.sections() for name, each in section.items()}
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


CONFORMANCE = """
import luthier.testing

test_conformance = luthier.testing.conformance("shout.py")
"""


@pytest.mark.slow
def test_every_plugin_in_the_docs_passes_the_conformance_kit(tmp_path):
    for number, (_, text) in enumerate(PLUGINS):
        folder = tmp_path / f"plugin_{number}"
        folder.mkdir()
        (folder / "shout.py").write_text(text)
        (folder / f"test_shout_{number}.py").write_text(CONFORMANCE)
    told = ["-q", "-p", "no:cacheprovider", "-k", "hooks or public or documented or schema or worker", "--no-header"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *told, "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{5 * len(PLUGINS)} passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_says_what_it_is_and_is_in_the_reference(name):
    each = PUBLIC[name]
    assert api.docstring(each)
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    assert re.search(rf"^### `{name}\b", page, re.MULTILINE)
    for member, function in (api.members(each) if inspect.isclass(each) else {}).items():
        assert api.docstring(function), f"{name}.{member}"


def test_the_guide_names_every_module_that_is_public():
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = text.partition("## What you may import\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(luthier\.[a-z]+)`", section)) == PUBLIC_MODULES - {"luthier"}


def test_the_table_of_modules_names_every_one_of_the_engine():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    there = {path.name for path in (ROOT / "engine" / "luthier").glob("[a-z]*.py")}
    named = set(re.findall(r"`(\w+\.py)`", text.partition("| module | its one idea |")[2].partition("\n\n")[0]))
    assert named == there


def test_the_reference_has_what_hooks_contexts_and_fixtures_are_for():
    assert {"Context", "Run", "StepResult", "RunStarted", "StepFailed", "run_component", "Project"} <= set(PUBLIC)
    assert {"rng", "metric"} <= set(api.members(PUBLIC["Context"]))
    assert "rows" in api.members(PUBLIC["Project"])


def test_what_has_no_docstring_of_its_own_is_found():
    @dataclass(frozen=True, kw_only=True)
    class Silent(api.events.Event):
        seconds: float = 0.0

    assert not api.docstring(Silent)
    assert not api.docstring(Silent.__init__)


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


STAGES = """
from luthier import Stage, hookimpl, hookspec

@hookspec
def luthier_augmenters():
    "Give the augmenters: rows in, more rows out."
@hookspec
def luthier_drawers():
    "Give the drawers."

@hookimpl
def luthier_stages():
    return [
        Stage("augment", "luthier_augmenters", "dataset", "Augmenters", one_of=("frame",), optional=("ctx",)),
        Stage("draw", "luthier_drawers", "model", "Drawers", optional=("ctx",)),
    ]
"""


def test_a_stage_that_a_plugin_adds_has_a_page_too(tmp_path):
    site = tmp_path / "site"
    (site / "acme_stages-1.2.dist-info").mkdir(parents=True)
    (site / "acme_stages.py").write_text(STAGES)
    metadata = "Metadata-Version: 2.1\nName: acme-stages\nVersion: 1.2\n"
    (site / "acme_stages-1.2.dist-info" / "METADATA").write_text(metadata)
    (site / "acme_stages-1.2.dist-info" / "entry_points.txt").write_text("[luthier]\nacme = acme_stages\n")
    paths = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    generate = [sys.executable, str(ROOT / "docs" / "generate.py"), "--installed", "--output", str(tmp_path / "pages")]
    subprocess.run(generate, env={**os.environ, "PYTHONPATH": paths}, check=True, capture_output=True)
    stages = tmp_path / "pages" / "stages"
    page = (stages / "augment.md").read_text("utf-8")
    assert "A stage that acme-stages adds; its hook is `luthier_augmenters`." in page
    assert "Give the augmenters: rows in, more rows out." in page
    assert "`luthier plugins new my-augment --stage augment`" in page
    assert "def luthier_augmenters() -> list" in page
    drawn = (stages / "draw.md").read_text("utf-8")
    assert "Give the drawers." in drawn
    assert "A whole plugin" not in drawn
    assert "A whole plugin" in (stages / "clean.md").read_text("utf-8")


def tables(page: Path) -> list[list[list[str]]]:
    """The tables of a page, rows of cells, the heading first."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        for block in blocks
    ]


def named_in(page: Path, heading: str) -> list[list[str]]:
    """The names in code type of each row, in the columns of that heading."""
    columns = [(table, table[0].index(heading)) for table in tables(page) if heading in table[0]]
    return [re.findall(r"`([^`]+)`", row[place]) for table, place in columns for row in table[2:]]


def components_of(distribution: str) -> list[str]:
    return sorted(each.name for each in load_plugins().components if each.distribution == distribution)


@pytest.mark.parametrize("page", sorted((ROOT / "plugins").glob("*/README.md")), ids=lambda page: page.parent.name)
def test_a_plugin_names_all_its_components_and_no_other(page):
    named = [name for names in named_in(page, "component") for name in names]
    assert sorted(named) == components_of(page.parent.name)


def test_the_readme_names_every_plugin_with_all_its_components_and_no_other():
    page = ROOT / "README.md"
    [table] = [table for table in tables(page) if "components" in table[0]]
    distributions = [row[0].partition("]")[0].removeprefix("[") for row in table[2:]]
    assert sorted(distributions) == sorted(path.parent.name for path in (ROOT / "plugins").glob("*/README.md"))
    for distribution, names in zip(distributions, named_in(page, "components"), strict=True):
        assert sorted(names) == components_of(distribution), distribution


def test_the_guide_names_every_command():
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    called = re.findall(r"luthier ([a-z]+)(?: ([a-z|]+))?", text)
    named = {(group, name) for group, names in called for name in names.split("|")}
    for name, command in typer.main.get_command(app).commands.items():
        assert name in {group for group, _ in named}
        for inner in getattr(command, "commands", ()):
            assert (name, inner) in named


def test_links_between_pages_lead_somewhere():
    everywhere = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md"), *PAGES]
    for page in dict.fromkeys(everywhere):
        for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not heading or heading in headings(target), f"{page.name}: {path}#{heading}"


def headings(page: Path) -> set[str]:
    """The names that links have for the headings of a page."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}
