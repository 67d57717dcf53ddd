"""The conformance kit: each check passes on a plugin that keeps the rule and fails on one that breaks it."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

# pytester forgets what a run in this process imports, and puts the import system back. polars loads once
# only, and importlib_metadata takes over what finds distributions: both must be there before.
for _name in ("polars", "importlib_metadata"):
    if importlib.util.find_spec(_name):
        importlib.import_module(_name)

pytest_plugins = ["pytester"]

TEST = """
import luthier.testing

test_conformance = luthier.testing.conformance({plugin!r})
"""
# So that it makes no difference whether the metadata of the installed luthier already names the pytest plugin.
WITH_FIXTURES = ("-p", "no:luthier", "-p", "luthier.testing.fixtures", "-p", "no:cacheprovider")

GOOD = '''
import json

from luthier import Context, Dataset, Frame, component, hookimpl


def words(ctx: Context, *, count: int = 10):
    """Make `count` documents."""
    import polars as pl

    yield pl.DataFrame({"text": [f"{ctx.rng(str(row)).random()} words" for row in range(count)]})


def tidy(frame: Frame, ctx: Context, *, at_least: int = 4) -> Frame:
    """Drop documents of fewer than `at_least` characters."""
    import polars as pl

    return frame.filter(pl.col("text").str.len_chars() >= at_least)


@component(gives="toy-lm")
def parrot(ctx: Context, *, steps: int = 4) -> None:
    """Learn to count, in so many `steps`, with a checkpoint after each."""
    saved = ctx.checkpoint / "counted.json"
    counted = json.loads(saved.read_text()) if saved.exists() else []
    for step in range(len(counted), steps):
        counted.append(step)
        temporary = ctx.checkpoint / "counted.tmp"
        temporary.write_text(json.dumps(counted))
        temporary.replace(saved)
    (ctx.output / "model.json").write_text(json.dumps(counted))


def measured(subject, data: Dataset, ctx: Context) -> None:
    """How many prompts there are."""
    ctx.metric("prompts", data.frame().height)


def taught(model, ctx: Context) -> None:
    """Copy the model."""
    (ctx.output / "model.json").write_bytes((model.path / "model.json").read_bytes())


@hookimpl
def luthier_sources():
    return [words]


@hookimpl
def luthier_cleaners():
    return [tidy]


@hookimpl
def luthier_architectures():
    return [parrot]


@hookimpl
def luthier_validators():
    return [measured]


@hookimpl
def luthier_tuners():
    return [taught]
'''

# Cleaners by name: the check that each fails, its body, and what the check says.
CLEANERS = {
    "silent": ("documented", "return frame", "at_least"),
    "wordy": ("documented", "return frame", "full stop"),
    "mute": ("schema", "return frame", "do not pass: at_least"),
    "strange": ("schema", "return frame", "no JSON Schema"),
    "fatal": ("worker", "__import__('os')._exit(7)", "status 7"),
    "sociable": (
        "no-network",
        "import contextlib, socket\nwith contextlib.suppress(OSError):\n"
        "    socket.socket().connect(('127.0.0.1', 9))\nreturn frame",
        "socket.connect*127.0.0.1",
    ),
    "untidy": (
        "own-directories",
        "import pathlib\npathlib.Path(__file__).with_name('state.txt').write_text('x')\nreturn frame",
        "state.txt*acme.py:",
    ),
    "native": ("own-directories", "frame.write_parquet('here.parquet')\nreturn frame", "here.parquet"),
    "moving": (
        "own-directories",
        "(ctx.output / 'a').touch()\n(ctx.output / 'a').rename('b')\nreturn frame",
        "os.rename*elsewhere/b",
    ),
    "chancy": (
        "same-bytes",
        "import random\nreturn frame.with_columns(extra=pl.lit(random.random()))",
        "output/shard-00000.parquet",
    ),
    "hashing": (
        "same-bytes",
        "return frame.with_columns(extra=pl.lit(str({'amber', 'birch', 'cedar', 'delta', 'ember'})))",
        "output/shard-00000.parquet",
    ),
    "neighbourly": ("sharding", "return frame.unique('text', keep='first', maintain_order=True)", "sharded"),
    "positional": ("sharding", "return frame.with_columns(extra=pl.int_range(pl.len()))", "sharded"),
    "greedy": (
        "hostile-rows",
        "assert frame['text'].str.len_chars().max() < 1_000_000\nreturn frame",
        "no rows: TypeError*a megabyte: AssertionError",
    ),
    "nullable": (
        "hostile-rows",
        "[len(value) for row in frame.rows() for value in row]\nreturn frame",
        "columns of nulls: TypeError",
    ),
    "picky": (
        "hostile-rows",
        "assert not frame['text'].str.contains('\\0', literal=True).any()\nreturn frame",
        "NUL: ",
    ),
}
SIGNATURES = {"silent": "at_least: int = 4", "mute": "at_least: int = None", "strange": "at_least: type = int"}
SUMMARIES = {"wordy": "Keep everything", "mute": "Use at_least.", "strange": "Use at_least."}
OTHERS = {
    "architecture:forgetful/killed": (
        """
        def forgetful(ctx) -> None:
            'Count on from the checkpoint, one too far.'
            saved = ctx.checkpoint / "counted"
            counted = len(saved.read_text()) if saved.exists() else 0
            for _ in range(4):
                counted += 1
                (ctx.checkpoint / "new").write_text("x" * counted)
                (ctx.checkpoint / "new").replace(saved)
            (ctx.output / "model.json").write_text(str(counted))
        """,
        "run again*output/model.json",
    ),
    "architecture:torn/killed": (
        """
        def torn(ctx) -> None:
            'Write the checkpoint in place.'
            saved = ctx.checkpoint / "counted"
            counted = json.loads(saved.read_text()) if saved.exists() else []
            for step in range(len(counted), 4):
                counted.append(step)
                saved.write_text(json.dumps(counted))
            (ctx.output / "model.json").write_text(json.dumps(counted))
        """,
        "JSONDecodeError",
    ),
    "validate:divided/hostile-rows": (
        """
        def divided(subject, data, ctx) -> None:
            'Divide by the number of rows.'
            ctx.metric("share", 1 / data.frame().height)
        """,
        "no rows: ZeroDivisionError",
    ),
}
OWN_DEFECTS = {
    "unknown hook": (
        "hooks",
        f"{GOOD}\n\n@hookimpl\ndef luthier_cleanres():\n    return []\n",
        "luthier_cleaners",
    ),
    "heavy library": ("light-import", f"import pydantic\n{GOOD}", "loads pydantic"),
    "written file": ("light-import", f"{GOOD}\n\nopen(__file__ + '.cache', 'w')", "acme.py.cache"),
    "network": (
        "light-import",
        f"{GOOD}\n\nimport socket\ntry:\n    socket.create_connection(('127.0.0.1', 9))\nexcept OSError:\n    pass",
        "socket.getaddrinfo",
    ),
}


def broken_plugin() -> str:
    lines = ["import json", "from luthier import hookimpl"]
    for name, (_, body, _) in CLEANERS.items():
        lines += [
            f"def {name}(frame, ctx{', *, ' + SIGNATURES[name] if name in SIGNATURES else ''}):",
            f"    {SUMMARIES.get(name, 'Keep the rows.')!r}",
            "    import polars as pl",
            textwrap.indent(body, "    "),
        ]
    lines += [textwrap.dedent(text) for text, _ in OTHERS.values()]
    hooks = {"cleaners": [*CLEANERS], "architectures": ["forgetful", "torn"], "validators": ["divided"]}
    for hook, names in hooks.items():
        lines += ["@hookimpl", f"def luthier_{hook}():", f"    return [{', '.join(names)}]"]
    return "\n".join(lines)


Check = Callable[..., pytest.RunResult]


@pytest.fixture
def check(pytester: pytest.Pytester) -> Check:
    """Run the kit on a one-file plugin; the options are pytest's."""

    def run(plugin: str, *options: str, conftest: str = "") -> pytest.RunResult:
        pytester.path.joinpath("acme.py").write_text(plugin, encoding="utf-8")
        pytester.makeconftest(conftest)
        pytester.makepyfile(TEST.format(plugin="acme.py"))
        return pytester.runpytest_inprocess("-rsf", *WITH_FIXTURES, *options)

    return run


def test_a_good_plugin_passes_with_a_test_for_each_check_and_component(check: Check) -> None:
    result = check(GOOD, "-v")
    result.assert_outcomes(passed=35, skipped=5)
    text = result.stdout.str()
    names = set(re.findall(r"\[(\S+)\] PASSED", text))
    assert {"hooks", "light-import", "clean:tidy/sharding", "architecture:parrot/killed"} <= names
    assert "source:words/hostile-rows" not in names  # it takes no rows
    assert "declared-libraries" not in names  # one file declares none
    # What lacks a sample is no pass, and says what is missing.
    assert {"tune:taught/documented", "tune:taught/schema"} <= names
    assert "no sample that it takes of model: samples={'model': …}" in text


def test_each_check_of_components_fails_on_what_breaks_it(check: Check) -> None:
    expected = {f"clean:{name}/{rule}": says for name, (rule, _, says) in CLEANERS.items()}
    expected |= {name: says for name, (_, says) in OTHERS.items()}
    result = check(broken_plugin(), "-k", " or ".join(expected))
    parts = re.split(r"^_+ test_conformance\[(\S+)\] _+$", result.stdout.str(), flags=re.MULTILINE)
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert sorted(told) == sorted(expected)
    for name, says in expected.items():
        assert all(part in told[name] for part in says.split("*")), told[name]


@pytest.mark.parametrize("defect", OWN_DEFECTS)
def test_each_check_of_the_plugin_fails_on_what_breaks_it(check: Check, defect: str) -> None:
    name, plugin, says = OWN_DEFECTS[defect]
    result = check(plugin, "-k", name)
    result.assert_outcomes(failed=1)
    assert says in result.stdout.str()


def test_samples_and_configurations_come_from_fixtures_too(check: Check, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_text("{}")
    conftest = f"""
        import pytest

        @pytest.fixture(scope="session")
        def luthier_samples():
            return {{"model": {str(model)!r}}}

        @pytest.fixture(scope="session")
        def luthier_configurations():
            return {{"words": {{"count": "many"}}}}
    """
    result = check(GOOD, "-k", "taught/worker or taught/same-bytes or words/schema", conftest=conftest)
    result.assert_outcomes(passed=2, failed=1)
    assert "count" in result.stdout.str()


def test_a_component_that_refuses_the_kits_sample_is_skipped_with_what_it_says(check: Check) -> None:
    refusal = "from luthier import InputError\n    raise InputError('no stars')\n    return frame.filter"
    result = check(GOOD.replace("return frame.filter", refusal), "-k", "tidy/worker or tidy/hostile-rows")
    result.assert_outcomes(passed=1, skipped=1)
    assert "no stars" in result.stdout.str()


def test_an_undeclared_library_is_found(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    site = pytester.mkdir("site")
    info = site / "acme_plugin-1.0.dist-info"
    info.mkdir()
    (site / "acme_conformed.py").write_text(GOOD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugin\nVersion: 1.0\nRequires-Dist: luthier\n")
    (info / "entry_points.txt").write_text("[luthier]\nacme-conformed = acme_conformed\n")
    monkeypatch.syspath_prepend(site)
    pytester.makepyfile(TEST.format(plugin="acme-conformed"))
    result = pytester.runpytest_inprocess(*WITH_FIXTURES, "-k", "declared-libraries or hooks")
    result.assert_outcomes(passed=1, failed=1)
    assert "acme-plugin imports polars and does not require it" in result.stdout.str()


@pytest.mark.slow
def test_a_plugin_runs_in_an_environment_of_its_own(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    pytester.makepyfile(TEST.replace("{plugin!r}", "'bias', own_environment=True"))
    result = pytester.runpytest_inprocess(*WITH_FIXTURES, "-k", "representation/own-environment")
    result.assert_outcomes(passed=1)


FIXTURES = """
from pathlib import Path

import acme
import pytest

from luthier import PluginError

RECIPE = "luthier: 1\\nsteps:\\n  - source: words\\n    count: 5\\n  - clean: tidy\\n"

def test_a_component(run_component):
    run = run_component(acme.tidy, ["no", "enough"])
    assert run.texts == ["enough"]
    assert run_component(acme.words, count=3).frame.height == 3
    with pytest.raises(PluginError, match="at_least"):
        run_component(acme.tidy, ["no"], at_least="4")

def test_a_context(luthier_context):
    acme.parrot(luthier_context, steps=2)
    assert (luthier_context.output / "model.json").read_text() == "[0, 1]"

def test_a_project(luthier_project):
    luthier_project.plugin(Path(acme.__file__))
    luthier_project.recipe(RECIPE)
    run = luthier_project.run()
    assert run.state == "done"
    assert run.dataset("tidy").frame().height == 5
"""


def test_the_fixtures_run_a_component_and_a_project(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(acme=GOOD)
    pytester.makepyfile(FIXTURES)
    pytester.runpytest_inprocess(*WITH_FIXTURES).assert_outcomes(passed=3)
