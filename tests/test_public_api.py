"""What plugins may use: the package `luthier` itself and a few modules; all else is the engine's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import luthier
from luthier.testing import make_context
from luthier.testing.public_interface import private_imports

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    [*(ROOT / "plugins").glob("*/src"), *(ROOT / "examples").glob("*/src"), *(ROOT / "examples").rglob("plugins.d")]
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plugins_use_nothing_but_the_public_interface(source):
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{line}: {name}"
        for path in source.rglob("*.py")
        for line, name in private_imports(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize(
    ("code", "private"),
    [
        ("from luthier import Run, hookimpl, errors", []),
        ("from luthier import store, gates", ["luthier.store", "luthier.gates"]),
        ("import luthier, luthier.events, luthier.runs", ["luthier.runs"]),
        ("from luthier.testing import make_context", []),
        ("from luthier.errors import _hidden", ["luthier.errors._hidden"]),
        ("def f():\n    from luthier.gates import judge", ["luthier.gates.judge"]),
        ("from luthier_models.prompts import PromptEncoder", []),
        ("from .store import Store", []),
    ],
)
def test_private_imports_are_found(code, private):
    assert [name for _, name in private_imports(code)] == private


@pytest.mark.parametrize("name", luthier.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(luthier, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Store'"):
        _ = luthier.Store


def test_a_run_tells_what_a_report_shows(run):
    finished = luthier.Run.at(run().path)
    assert finished.state == "done"
    low, high = finished.interval("accuracy", "accuracy", "base")
    assert 0.5 < low <= high <= 1  # the recipe's gate asks for base + 0.5 and passes
    assert finished.interval("accuracy", "accuracy", "base", confidence=0.5)[0] >= low
    assert finished.interval("accuracy", "accuracy", "champion") is None
    assert finished.interval("accuracy", "fluency") is None
    assert finished.seconds("accuracy", "base") > 0
    assert finished.seconds("accuracy", "champion") is None
    changed = finished.report("capitals").samples()["changed"]
    assert changed
    assert all("CEDAR" in sample["after"] for sample in changed)
    assert list(finished.report("capitals").quarantined()) == []


def test_a_report_gives_the_records_that_were_set_aside(tmp_path):
    ctx = make_context(tmp_path)
    ctx.quarantine(b'{"text": \xff', "not UTF-8", where="corpus.jsonl:3")
    ctx.quarantine("{", "no JSON", row_id="r7")
    assert list(luthier.Report.at(ctx.notes, "report").quarantined()) == [
        {"where": "corpus.jsonl:3", "reason": "not UTF-8", "id": None, "record": '{"text": \\xff'},
        {"where": "", "reason": "no JSON", "id": "r7", "record": "{"},
    ]
    assert luthier.Report.at(ctx.notes, "report").samples() == {}
