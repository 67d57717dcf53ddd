"""The conformance kit: each check passes on a plugin that keeps the rule and fails on one that breaks it."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.scaffold import Naming, find_stage, write
from luthier.testing.imported import undeclared_imports, unused_requirements

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]

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
    "two__lines": ("documented", "return frame", "without double _"),
    "Loud": ("documented", "return frame", "in lower case"),
    "null": ("documented", "return frame", "YAML reads 'null'"),
    "on": ("documented", "return frame", "YAML reads 'on'"),
    "mute": ("schema", "return frame", "at_least*integer, not None"),
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
    "clean:thieving/own-directories": (
        """
        def thieving(data, ctx):
            'Write into the input, from native code.'
            import polars as pl
            for shard in sorted(data.path.glob("*.parquet")):
                pl.read_parquet(shard).write_parquet(shard, compression="uncompressed")
            return data.frame()
        """,
        "thieving* changed its input data",
    ),
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
    "engine's own": (
        "public-interface",
        GOOD.replace(
            "    import polars as pl\n", "    from luthier.frames import check_form\n    import polars as pl\n", 1
        ),
        "luthier.frames.check_form",
    ),
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
    hooks = {"cleaners": [*CLEANERS, "thieving"], "architectures": ["forgetful", "torn"], "validators": ["divided"]}
    for hook, names in hooks.items():
        lines += ["@hookimpl", f"def luthier_{hook}():", f"    return [{', '.join(names)}]"]
    return "\n".join(lines)


Check = Callable[..., pytest.RunResult]


@pytest.fixture
def check(pytester: pytest.Pytester) -> Check:
    """Run the kit on a one-file plugin, in a process of its own; the options are pytest's.

    In this one pytester would make Python forget what the kit imported, and compiled libraries load only once.
    """

    def run(plugin: str, *options: str, conftest: str = "", settings: str = "") -> pytest.RunResult:
        pytester.path.joinpath("acme.py").write_text(plugin, encoding="utf-8")
        pytester.makeconftest(conftest)
        pytester.makepyfile(TEST.replace("{plugin!r}", f"'acme.py', {settings}"))
        return pytester.runpytest_subprocess("-rsf", *WITH_FIXTURES, *options)

    return run


def test_a_good_plugin_passes_with_a_test_for_each_check_and_component(check: Check) -> None:
    result = check(GOOD, "-v")
    result.assert_outcomes(passed=38, skipped=5)
    text = result.stdout.str()
    names = set(re.findall(r"\[(\S+)\] PASSED", text))
    assert {"hooks", "light-import", "clean:tidy/sharding", "architecture:parrot/killed"} <= names
    assert "source:words/hostile-rows" not in names  # it takes no rows
    assert "declared-libraries" not in names  # one file declares none
    # What lacks a sample is no pass, and says what is missing.
    assert {"tune:taught/documented", "tune:taught/schema"} <= names
    assert "no sample that it takes of model: samples={'model': …}" in text


def test_each_check_of_components_fails_on_what_breaks_it(check: Check) -> None:
    expected = {f"clean:{name.replace('_', '-')}/{rule}": says for name, (rule, _, says) in CLEANERS.items()}
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


def told(result: pytest.RunResult) -> str:
    """What is printed, which has no frames: pytest marks those of an exception with an E."""
    text = result.stdout.str()
    assert not re.search(r"^E  ", text, re.MULTILINE)
    return text


def test_what_breaks_every_run_is_told_once(check: Check) -> None:
    dropping = GOOD.replace("return frame.filter(pl.col(", "return frame.drop('id').filter(pl.col(")
    result = check(dropping, "-k", "tidy")
    result.assert_outcomes(passed=2, failed=1, skipped=6)
    assert "see clean:tidy/worker" in result.stdout.str()


def test_a_bad_default_is_told_once(check: Check) -> None:
    result = check(GOOD.replace("at_least: int = 4", "at_least: int = '4'"), "-k", "tidy")
    result.assert_outcomes(passed=1, failed=1, skipped=7)
    text = told(result)
    assert "input should be a valid integer, not '4'" in text
    assert "see clean:tidy/schema" in text


def test_a_bad_default_is_a_message_where_the_schema_is_not_checked(check: Check) -> None:
    result = check(GOOD.replace("at_least: int = 4", "at_least: int = '4'"), "-k", "tidy/worker")
    result.assert_outcomes(failed=1)
    assert "input should be a valid integer, not '4'" in told(result)


def test_a_configuration_of_an_unknown_key_is_told_once(check: Check) -> None:
    result = check(GOOD, "-k", "tidy", settings="configurations={'tidy': {'at_leest': 3}}")
    result.assert_outcomes(passed=1, failed=1, skipped=7)
    assert "at_leest: unknown key, did you mean 'at_least'?" in told(result)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("configurations={'tidier': {}}", "configurations names the component 'tidier', did you mean 'tidy'?"),
        ("samples={'modle': 'x'}", "samples names the input 'modle', did you mean 'model'?"),
        ("samples={'onnx': 'x'}", "There are: data, frame, model, subject."),
        ("configurations={'clean:tidy': {'at_least': 3}, 'words': {}}", ""),
    ],
)
def test_what_is_given_for_nothing_is_refused(check: Check, settings: str, says: str) -> None:
    result = check(GOOD, "-k", "settings", settings=settings)
    result.assert_outcomes(failed=bool(says), passed=not says)
    assert says in told(result)


def test_what_is_slow_is_marked_and_what_is_not_there_is_told(check: Check) -> None:
    chosen = "clean:tidy/killed or clean:tidy/killde or clean:tidy/worker"
    settings = "slow={'clean:tidy/killed', 'clean:tidy/killde'}"
    result = check(GOOD, "-m", "not slow", "-k", chosen, settings=settings)
    result.assert_outcomes(passed=1, failed=1, deselected=42)
    assert "slow names the test 'clean:tidy/killde', did you mean 'clean:tidy/killed'?" in told(result)


def test_what_a_new_plugin_skips_says_why_in_the_quietest_run(pytester: pytest.Pytester) -> None:
    write(Naming.of("acme"), find_stage("clean"), pytester.path)
    (pytester.path / "acme" / "pyproject.toml").replace(pytester.path / "pyproject.toml")
    tests = pytester.mkdir("tests")
    (tests / "acme.py").write_text(GOOD.replace("at_least: int = 4", "at_least: int"))
    (tests / "test_acme.py").write_text(TEST.format(plugin="acme.py"))
    result = pytester.runpytest_subprocess(*WITH_FIXTURES, "-q", "-k", "tidy/worker")
    result.assert_outcomes(skipped=1)
    assert "no value for at_least: configurations={'tidy': {'at_least': …}}" in result.stdout.str()


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        ("acne.py", "acne.py: its path starts at the test's folder; did you mean 'acme.py'?"),
        ("biass", "no plugin is called 'biass'; did you mean 'bias'? Installed: bias, "),
        ("nothing-like-it", "no plugin is called 'nothing-like-it'; Install it first"),
    ],
)
def test_a_plugin_that_is_not_there_is_one_message(pytester: pytest.Pytester, plugin: str, says: str) -> None:
    pytester.makepyfile(acme=GOOD)
    pytester.makepyfile(TEST.format(plugin=plugin))
    result = pytester.runpytest_subprocess("-rf", *WITH_FIXTURES)
    result.assert_outcomes(failed=1)
    text = told(result)
    assert says in text
    assert "LUTHIER_PLUGINS" not in text


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


def install(site: Path, module: str, code: str, *requirements: str) -> None:
    """Lay down the distribution acme-plugin with one module, as an installer would."""
    info = "acme_plugin-1.0.dist-info"
    metadata = ["Metadata-Version: 2.1", "Name: acme-plugin", "Version: 1.0"]
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": "\n".join([*metadata, *(f"Requires-Dist: {name}" for name in requirements), ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[luthier]\n{module.replace('_', '-')} = {module}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    (site / info).mkdir()
    for path, text in files.items():
        (site / path).write_text(text, encoding="utf-8")


OTHER_SYSTEM = "linux" if sys.platform == "win32" else "win32"
# By what they show: the code, its requirements, and which are undeclared and unused.
DECLARATIONS = {
    "none": ("import rich", [], {"rich"}, set()),
    "another extra": ("import rich", ['rich; extra == "dev"'], {"rich"}, set()),
    "another system": ("import rich", [f'rich>=14; sys_platform == "{OTHER_SYSTEM}"'], {"rich"}, set()),
    "in an environment of its own": ("import rich", ['rich; extra == "environment"'], set(), set()),
    "below a test of the system": ("import sys\nif sys.platform == 'cygwin':\n    import rich", [], set(), set()),
    "unused": ("", ["rich"], set(), {"rich"}),
    "unused but luthier": ("", ["luthier"], set(), set()),
    "unused where that holds": ("", [f'rich; sys_platform == "{OTHER_SYSTEM}"'], set(), set()),
    "unused in an extra": ("", ['rich; extra == "environment"'], set(), set()),
    "for types": ("if TYPE_CHECKING:\n    import rich", ["rich"], set(), set()),
    "by name": ("BACKEND = 'rich.console'", ["rich"], set(), set()),
    "required by another": ("import typer", ["typer", "rich"], set(), set()),
    "imported by another": ("import transformers", ["transformers", "gguf"], set(), set()),
    "a plugin of pytest": ("", ["pytest-xdist"], set(), set()),
    "of another name": ("import ruamel.yaml", ["ruamel.yaml"], set(), set()),
    "not installed": ("", ["acme-is-nowhere"], set(), set()),
}


@pytest.mark.parametrize("case", DECLARATIONS)
def test_what_is_undeclared_and_what_is_unused(tmp_path: Path, case: str) -> None:
    code, requirements, undeclared, unused = DECLARATIONS[case]
    (tmp_path / "acme.py").write_text(code)
    assert undeclared_imports([tmp_path / "acme.py"], {"acme"}, requirements) == undeclared
    assert unused_requirements([tmp_path / "acme.py"], requirements) == unused


@pytest.mark.parametrize(
    ("requirements", "says"),
    [
        (["luthier"], "acme-plugin imports polars and does not require it"),
        (["luthier", "polars", "jsonschema"], "acme-plugin requires jsonschema, which neither its code"),
    ],
    ids=["undeclared", "unused"],
)
def test_an_undeclared_and_an_unused_library_are_found(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, requirements: list[str], says: str
) -> None:
    site = pytester.mkdir("site")
    install(site, "acme_needy", GOOD, *requirements)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    pytester.makepyfile(TEST.format(plugin="acme-needy"))
    result = pytester.runpytest_subprocess(*WITH_FIXTURES, "-k", "declared-libraries or hooks")
    result.assert_outcomes(passed=1, failed=1)
    assert says in result.stdout.str()


@pytest.mark.parametrize(
    ("defined", "module", "wrong"),
    [("__init__", "tidy", True), ("__init__", "_tidy", False), ("cleaners", "tidy", False)],
    ids=["of its name", "of another name", "defined elsewhere"],
)
def test_a_module_that_would_take_a_components_place_is_found(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, defined: str, module: str, wrong: bool
) -> None:
    site = pytester.mkdir("site")
    install(site, "acme_needy", "", "luthier", "polars")
    (site / "acme_needy.py").unlink()
    package = site / "acme_needy"
    package.mkdir()
    files = {"__init__": "from acme_needy.cleaners import luthier_cleaners", module: "", defined: GOOD}
    for name, code in files.items():
        (package / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    pytester.makepyfile(TEST.format(plugin="acme-needy"))
    result = pytester.runpytest_subprocess(*WITH_FIXTURES, "-k", "module-names or hooks")
    result.assert_outcomes(passed=1 + (not wrong), failed=int(wrong))
    if wrong:
        result.stdout.fnmatch_lines(
            ["*`acme_needy.tidy` is the module and no longer the component: rename the module*"]
        )


def test_every_plugin_of_ours_is_held_to_the_kit() -> None:
    # A plugin that is a command alone has no components, which are what the kit is about.
    with_components = "[project.entry-points.luthier]"
    projects = sorted((ROOT / "plugins").glob("luthier-*/pyproject.toml"))
    plugins = [path.parent for path in projects if with_components in path.read_text(encoding="utf-8")]
    assert plugins
    for plugin in [*plugins, ROOT / "examples" / "plugin"]:
        tests = [path.read_text(encoding="utf-8") for path in (plugin / "tests").glob("test_*.py")]
        assert any(re.search(r"^test_\w+ = (\w+\.)*conformance\(", text, re.MULTILINE) for text in tests), plugin.name


@pytest.mark.slow
def test_a_plugin_runs_in_an_environment_of_its_own(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    pytester.makepyfile(TEST.replace("{plugin!r}", "'bias', own_environment=True"))
    result = pytester.runpytest_subprocess(*WITH_FIXTURES, "-k", "representation/own-environment")
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_plugin_that_needs_more_than_it_requires_fails_in_an_environment_of_its_own(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    site = pytester.mkdir("site")
    # By name, so that the code alone does not tell.
    needy = GOOD.replace("return frame.filter", "__import__('ftfy')\n    return frame.filter")
    # Does without it, with another result.
    needy = needy.replace("range(count)]", "range(count + bool(importlib.util.find_spec('ftfy')))]")
    needy = needy.replace("import json", "import importlib.util\nimport json", 1)
    install(site, "acme_needy", needy, "luthier", "polars")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    pytester.makepyfile(TEST.replace("{plugin!r}", "'acme-needy', own_environment=True"))
    result = pytester.runpytest_subprocess(*WITH_FIXTURES, "-k", "(tidy or words) and (own-environment or worker)")
    result.assert_outcomes(passed=2, failed=2)
    text = result.stdout.str()
    assert "No module named 'ftfy'" in text
    assert "run here and in the environment" in text
    assert "gives other bytes: output/shard-00000.parquet. Require what it uses" in text


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
    pytester.runpytest_subprocess(*WITH_FIXTURES).assert_outcomes(passed=3)
