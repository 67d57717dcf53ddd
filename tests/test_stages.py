"""Stages that plugins add: in recipes, plans, the cache, the schema, the reference; and what is wrong with some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import jsonschema
import pytest

import luthier
from luthier.plugins import Registry, UnknownComponent, UnknownStage, load_plugins
from luthier.recipe import parse_recipe
from luthier.schema import recipe_schema

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "stage-synthesize"

STAGE = '''
from luthier import Stage, hookimpl, hookspec

@hookspec
def {hook}():
    """Give the {name} components."""

@hookimpl
def luthier_stages():
    return [Stage("{name}", "{hook}", {gives!r}, "The stage {name}"{more})]
'''
GIVER = '''
from luthier import hookimpl

def {component}(data, ctx):
    """Do nothing."""

@hookimpl(specname="{hook}")
def ours():
    return [{component}]
'''
FREE = ', one_of=("frame", "data"), optional=("ctx",)'


def stage(
    name: str = "augment", hook: str = "luthier_augmenters", gives: str | None = "dataset", more: str = FREE
) -> str:
    return STAGE.format(name=name, hook=hook, gives=gives, more=more)


def giver(component: str = "more", hook: str = "luthier_augmenters") -> str:
    return GIVER.format(component=component, hook=hook)


Load = Callable[..., Registry]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load local plugins, given as `name=source`, and no installed ones."""

    def call(**sources: str) -> Registry:
        files = []
        for name, source in sources.items():
            files.append(tmp_path / f"{name}.py")
            files[-1].write_text(dedent(source))
        return load_plugins(local=files, environ={"LUTHIER_PLUGINS": ",".join(sources)})

    return call


def error_of(registry: Registry, name: str) -> str:
    return next(broken.error for broken in registry.broken if broken.name == name)


@pytest.mark.parametrize("order", [("a_stage", "b_giver"), ("b_stage", "a_giver")])
def test_a_plugin_gives_components_for_the_stage_of_another_whatever_their_order(load, order):
    first, second = order
    registry = load(**{first: stage() + giver("own").replace("def ours", "def theirs"), second: giver()})
    assert registry.broken == ()
    assert [str(component) for component in registry.components] == ["augment:more", "augment:own"]
    assert registry.stage("augment").title == "The stage augment"
    assert [added.plugin for added in registry.added_stages] == [first]


def test_the_components_of_a_plugins_stage_are_held_to_what_it_offers(load):
    wrong = giver().replace("(data, ctx)", "(model, ctx)")
    registry = load(adds=stage(), gives=wrong)
    assert "asks for 'model', which this stage does not offer" in error_of(registry, "gives")
    assert registry.stage("augment")


def test_a_misspelt_hook_of_a_plugins_stage_is_found(load):
    registry = load(adds=stage(), gives=giver(hook="luthier_augmentors"))
    error = error_of(registry, "gives")
    assert "there is no hook 'luthier_augmentors'; did you mean 'luthier_augmenters'?" in error


def test_an_unmarked_hook_of_a_plugins_stage_is_found(load):
    registry = load(adds=stage(), gives="import luthier\ndef luthier_augmenters(): return []\n")
    assert "'luthier_augmenters' is not marked as a hook" in error_of(registry, "gives")


def test_components_for_a_stage_whose_plugin_is_not_there_say_so(load):
    registry = load(adds="1 / 0\n" + stage(), gives=giver())
    error = error_of(registry, "gives")
    assert "there is no hook 'luthier_augmenters'" in error
    assert "a stage that another plugin adds, that plugin is not there (not loaded: adds" in error
    with pytest.raises(UnknownStage) as caught:
        registry.stage("augment")
    left_out = caught.value.remedy.partition("plugins that were not loaded: ")[2].split(", ")
    assert {"adds", "gives"} <= set(left_out)


def test_the_stage_of_a_plugin_with_a_wrong_component_is_still_there_for_others(load):
    wrong = giver("own").replace("(data, ctx)", "(colour)").replace("def ours", "def mine")
    registry = load(adds=stage() + wrong, gives=giver())
    assert [broken.name for broken in registry.broken] == ["adds"]
    assert [component.name for component in registry.of_stage("augment")] == ["more"]
    with pytest.raises(UnknownComponent) as caught:
        registry.find("augment", "unheard")
    assert "Broken, so not loaded: adds" in caught.value.remedy


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (stage(hook="luthier_others"), "stage augment"),
        (stage(name="extend"), "hook luthier_augmenters"),
        (stage(), "stage augment"),
    ],
    ids=["name", "hook", "both"],
)
def test_stages_that_clash_are_both_left_out_and_named(load, other, what):
    registry = load(one=stage(), two=other, gives=giver())
    (broken,) = registry.broken
    assert broken.name == what
    assert "one.py (plugin 'one') for the stage 'augment' (luthier_augmenters)" in broken.error
    assert "two.py (plugin 'two') for the stage" in broken.error
    assert registry.added_stages == ()
    assert {plugin.name for plugin in registry.plugins} == {"one", "two", "gives"}
    text = "luthier: 1\nsteps:\n  - augment: more\n"
    (problem,) = parse_recipe(text, registry, path=None, directory=Path()).problems
    assert problem.key == "steps[0].augment"
    if what.startswith("stage"):
        assert "two.py" in problem.message


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (stage(name="clean"), "has the name of the core's stage 'clean' (luthier_cleaners)"),
        (stage(name="Big Stage"), "has a name that recipes cannot use"),
        (stage(name="runtime"), "has a name that recipes cannot use"),
        (stage(name=""), "has a name that recipes cannot use"),
        (stage(hook="luthier_cleaners"), "has the hook 'luthier_cleaners', which is the core's"),
        (stage(hook="luthier_run_finished"), "has the hook 'luthier_run_finished', which is the core's"),
        (stage(hook="augmenters"), "a hook's name is `luthier_` and a plural noun"),
        (stage(gives="pictures"), "gives 'pictures'; a stage gives dataset, model, onnx or report"),
        (stage(gives=None), "gives None"),
        (stage(more=', needs=("datum",)'), "offers 'datum', which is no input"),
        (stage(gives="model"), "offers `frame` where it cannot"),
        (stage(more=', one_of=("frame",), optional=("model",)'), "offers `frame` where it cannot"),
        (stage(more=', needs=("subject",)'), "offers `subject`, but gives no report"),
        (stage(gives="report", more=', optional=("reference",)'), "offers `reference` without the need of a `subject`"),
        (stage().replace("@hookspec\n", ""), "has no specification: write `@luthier.hookspec` above"),
        (
            stage() + "\n@hookimpl\ndef luthier_augmenters():\n    return []\n",
            "takes the name away; rename it and mark it `@luthier.hookimpl(specname='luthier_augmenters')`",
        ),
        (stage().replace('"""Give the augment components."""', "pass"), "has a hook without a docstring"),
        (stage().replace("def luthier_augmenters()", "def luthier_augmenters(config)"), "has a hook with parameters"),
        (stage().replace("@hookspec\n", "@hookspec(firstresult=True)\n"), "has a hook with options"),
        (stage().replace("[Stage(", "3 or [Stage("), "luthier_stages returned 3"),
        (stage().replace("return [", "return ['augment', "), "luthier_stages returned ['augment', "),
        (stage().replace("def luthier_stages()", "def luthier_stages(config)"), "asks for 'config'"),
        (
            stage().replace("return [", "return []; [", 1),
            "it specifies the hook 'luthier_augmenters', which is of none",
        ),
        (stage().replace("def luthier_stages", "def luthier_stage"), "did you mean 'luthier_stages'?"),
        (stage().replace(")]", ")] * 2"), "shares its name or hook with its stage 'augment'"),
    ],
)
def test_what_is_wrong_with_a_stage_is_told(load, source, error):
    registry = load(adds=source)
    assert error in error_of(registry, "adds")
    assert registry.added_stages == ()


PLUGIN = '''
import json
import polars as pl
from luthier import Stage, component, hookimpl, hookspec

def repeat(frame, ctx, *, mark: str = "!"):
    """Add each training row once more."""
    more = frame.filter(split="train").with_columns(pl.col("id", "prompt") + mark)
    ctx.metric("more", more.height)
    return pl.concat([frame, more])

def letters(ctx):
    """Make documents of letters."""
    return pl.DataFrame({"text": list("abc")})

@component(gives="toy-lm")
def draw(ctx):
    """Make a model out of nothing."""
    (ctx.output / "model.json").write_text("{}")

def shrink(onnx, ctx):
    """Write the graph down again."""
    (ctx.output / "frozen.json").write_text((onnx.path / "frozen.json").read_text())

def census(data, ctx):
    """Count rows."""
    ctx.metric("rows", data.frame().height)

def quiz(subject, data, ctx):
    """Count the answers."""
    prompts = data.frame()["prompt"].to_list()
    ctx.metric("answers", len(subject.generate(prompts)))

@hookspec
def luthier_repeaters():
    """Give the repeaters."""
@hookspec
def luthier_drawers():
    """Give the drawers."""
@hookspec
def luthier_shrinkers():
    """Give the shrinkers."""
@hookspec
def luthier_censors():
    """Give the censuses."""

@hookimpl
def luthier_stages():
    return [
        Stage("repeat", "luthier_repeaters", "dataset", "Repeaters", optional=("frame", "ctx")),
        Stage("draw", "luthier_drawers", "model", "Drawers", optional=("ctx", "model")),
        Stage("shrink", "luthier_shrinkers", "onnx", "Shrinkers", needs=("onnx",), optional=("ctx",)),
        Stage("measure", "luthier_censors", "report", "Measures", optional=("subject", "data", "ctx")),
    ]

@hookimpl(specname="luthier_repeaters")
def repeaters():
    return [repeat, letters]
@hookimpl(specname="luthier_drawers")
def drawers():
    return [draw]
@hookimpl(specname="luthier_shrinkers")
def shrinkers():
    return [shrink]
@hookimpl(specname="luthier_censors")
def censors():
    return [census, quiz]
'''
RECIPE = """
luthier: 1
name: stages
seed: 3
steps:
  - source: words
    count: 200
  - format: riddles
  - repeat: repeat
  - measure: census
    gate: {rows: {at_least: 201}}
  - architecture: parrot
  - tune: teach
  - export: freeze
  - shrink: shrink
  - measure: quiz
    gate: {answers: {at_least: base}}
"""
Project = Path


@pytest.fixture
def stages(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The toy project with a plugin that adds a stage of every kind, and a recipe that uses them."""
    (project / "plugins.d" / "stages.py").write_text(PLUGIN)
    (project / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,stages")
    return project


def planned(project: Project, text: str) -> list[str]:
    """What is wrong with a recipe, as lines."""
    (project / "other.yaml").write_text(text)
    with pytest.raises(luthier.InputError) as caught:
        luthier.plan(project / "other.yaml")
    return str(caught.value).splitlines()


def test_steps_of_plugins_stages_run_are_cached_and_explained(stages, run):
    first = run()
    formatted, repeated = (first.step(name).counts for name in ("riddles", "repeat"))
    assert repeated["added"] == first.step("repeat").metrics["more"] > 0
    assert repeated["documents_in"] == repeated["kept"] == formatted["kept"]
    rows = first.dataset("repeat")
    assert rows.form == "prompt-completion"
    assert first.step("census").metrics == {"rows": repeated["kept"] + repeated["added"]}
    assert [gate.passed for gate in first.gates] == [True, True]
    assert first.step("shrink").form == "toy-onnx"
    assert first.model().hash == first.step("shrink").artifact
    assert {"answers", "base.answers", "reference.answers"} == set(first.step("quiz").metrics)

    assert {node.state for node in luthier.plan(stages / "recipe.yaml")} == {"cached"}
    changed = luthier.plan(stages / "recipe.yaml", overrides={"repeat.mark": "?"})
    why = {node.node.id: node.why for node in changed}
    assert why["repeat"] == 'configuration of repeat changed: mark "!" → "?"'
    assert why["census"] == "depends on repeat"


def test_a_changed_stage_does_its_steps_again(stages, run):
    run(until="repeat")
    plugin = stages / "plugins.d" / "stages.py"
    plugin.write_text(PLUGIN.replace('"Repeaters", optional', '"Repeaters", contract=2, optional'))
    (node,) = [node for node in luthier.plan(stages / "recipe.yaml") if node.node.id == "repeat"]
    assert "the stage's contract changed" in node.why


def test_a_report_on_data_has_gates_that_refuse(stages, run):
    with pytest.raises(luthier.LuthierError) as caught:
        run(overrides={"census.gate": {"rows": {"at_least": 10_000}}})
    assert caught.value.exit_code == 4


def test_a_component_that_takes_no_data_makes_documents(stages, run):
    (stages / "recipe.yaml").write_text("luthier: 1\nsteps:\n  - repeat: letters\n  - clean: unique\n")
    frame = run().dataset("unique").frame()
    assert sorted(frame["text"]) == ["a", "b", "c"]
    assert frame["id"].n_unique() == 3


def test_a_model_that_is_made_of_none_is_a_base(stages):
    (stages / "recipe.yaml").write_text(RECIPE.replace("  - tune", "  - draw: draw\n  - tune"))
    nodes = luthier.plan(stages / "recipe.yaml")
    (base,) = [node.node for node in nodes if node.node.subject == "base"]
    assert base.inputs["subject"].id == "draw"


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("- reapeat: repeat", "'reapeat' is none; did you mean 'repeat'?"),
        ("- repeat: repat", "did you mean 'repeat'?"),
        ("- source: words\n- repeat: repeat\n  loud: 1", "unknown key"),
        ("- shrink: shrink", "needs an onnx, but no earlier step gives one"),
        ("- source: words\n- measure: census\n  runtime: transformers", "measure:census measures no `subject`"),
        ("- source: words\n- measure: census\n  gate: {rows: {at_least: base}}", "compares with base"),
        ("- source: words\n  gate: {rows: {at_least: 3}}", "only a `validate` or `measure` step has a gate"),
    ],
)
def test_what_is_wrong_with_a_step_of_a_plugins_stage_is_told_while_planning(stages, steps, told):
    assert any(told in line for line in planned(stages, f"luthier: 1\nsteps:\n{steps}\n")), steps


def test_the_schema_has_the_stages_of_plugins(stages):
    registry = load_plugins(local=sorted((stages / "plugins.d").glob("*.py")))
    schema = recipe_schema(registry)

    def valid(step: dict[str, object]) -> bool:
        validator = jsonschema.Draft202012Validator(schema)
        return validator.is_valid({"luthier": 1, "steps": [step]})

    assert valid({"repeat": "repeat", "mark": "?"})
    assert not valid({"repeat": "repeat", "mork": "?"})
    assert not valid({"repeat": "unheard"})
    assert valid({"measure": "census", "gate": {"rows": {"at_least": 1}}})
    assert not valid({"measure": "census", "runtime": "transformers"})
    assert valid({"measure": "quiz", "runtime": "transformers"})


def test_the_command_line_treats_a_plugins_stage_like_ours(stages, command):
    def output(*arguments: str) -> str:
        process = command(*arguments)
        told, errors = process.communicate()
        assert process.returncode == 0, errors
        return told

    assert [row.split()[:2] for row in output("plugins", "list", "--stage", "repeat").splitlines()[1:]] == [
        ["repeat", "letters"],
        ["repeat", "repeat"],
    ]
    assert "- repeat: repeat\n  # mark: " in output("plugins", "show", "repeat:repeat")
    rows = [{"id": "a", "text": "x", "split": "train", "prompt": "p"}]
    (stages / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output("plugins", "run", "repeat", "--input", "rows.jsonl", "--output", "out.jsonl", "--mark", "?")
    assert [json.loads(line)["id"] for line in (stages / "out.jsonl").read_text().splitlines()] == ["a", "a?"]


# --- the example --------------------------------------------------------------------------------------

PAIRS = """
import polars as pl
from luthier import component, hookimpl

@component(gives="prompt-completion")
def pairs(ctx, *, count: int = 5000):
    "Make pairs of numbers and their doubles."
    n = pl.int_range(count, eager=True)
    text = n.cast(pl.String)
    split = (n % 5 == 0).replace_strict({True: "test", False: "train"}, return_dtype=pl.String)
    columns = {"id": text, "group": text, "split": split, "prompt": text, "completion": (n * 2).cast(pl.String)}
    yield pl.DataFrame(columns)

@hookimpl
def luthier_sources():
    return [pairs]
"""
SYNTHESIZE = """
luthier: 1
seed: 7
steps:
  - source: pairs
  - synthesize: templates
    templates:
      - prompt: "Twice {prompt}?"
      - prompt: "{prompt} and {prompt}?"
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with a source of pairs and a recipe that makes more of them."""
    directory = tmp_path / "workshop"
    (directory / "plugins.d").mkdir(parents=True)
    (directory / "plugins.d" / "pairs.py").write_text(PAIRS)
    (directory / "recipe.yaml").write_text(SYNTHESIZE)
    return directory


@pytest.fixture
def example(tmp_path: Path) -> dict[str, str]:
    """The environment of processes in which the example is installed, as far as Python can tell."""
    info = tmp_path / "site" / "luthier_synthesize-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: luthier-synthesize\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[luthier]\nsynthesize = luthier_synthesize\n")
    before = filter(None, [os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(info.parent), str(EXAMPLE / "src"), *before])}


def call(directory: Path, environment: dict[str, str], *command: object) -> str:
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, cwd=directory, env=environment, check=True, capture_output=True, text=True).stdout


CHECK_PAIRS = """
import luthier
run = luthier.run("recipe.yaml", display=False)
frame = run.dataset("templates").frame()
assert run.step("templates").counts["added"] == 4000, run.step("templates").counts
assert set(frame.filter(split="test")["id"]) == {str(n) for n in range(0, 5000, 5)}
made = frame.filter(frame["id"].str.contains("~"))
asked = {row["id"]: (row["group"], row["prompt"], row["completion"]) for row in made.to_dicts()}
assert all(prompt in (f"Twice {n}?", f"{n} and {n}?") for n, prompt, _ in asked.values())
assert all(int(twice) == 2 * int(n) for n, _, twice in asked.values())
assert {id.partition("~")[0] for id in asked} == set(frame.filter(split="train")["group"])
assert {node.state for node in luthier.plan("recipe.yaml")} == {"cached"}
print(run.step("templates").artifact)
"""


@pytest.mark.slow
def test_the_example_gives_more_training_pairs_the_same_each_time(workshop, example):
    listed = call(workshop, example, "-m", "luthier.cli", "plugins", "list", "--stage", "synthesize")
    assert listed.splitlines()[1].split()[:3] == ["synthesize", "templates", "luthier-synthesize"]
    first = call(workshop, example, "-c", CHECK_PAIRS)
    again = call(workshop, {**example, "LUTHIER_HOME": str(workshop / "other")}, "-c", CHECK_PAIRS)
    assert first == again


def test_the_examples_own_tests_pass(example):
    call(EXAMPLE, example, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")


def test_the_examples_recipe_is_planned(example, tmp_path):
    home = {**example, "LUTHIER_HOME": str(tmp_path / "home")}
    told = call(EXAMPLE, home, "-m", "luthier.cli", "plan", "recipe.yaml", "--json")
    assert "templates" in told


def test_the_reference_can_be_written_with_the_stages_of_plugins(example, tmp_path):
    call(ROOT, example, "docs/generate.py", "--installed", "--output", tmp_path)
    assert "### `luthier_synthesizers() -> " in (tmp_path / "hooks.md").read_text("utf-8")
    assert "Give the synthesizers: training examples in" in (tmp_path / "hooks.md").read_text("utf-8")
    assert "| `synthesize` | frame or data, ctx (optional) | dataset |" in (tmp_path / "recipe.md").read_text("utf-8")
    assert "### `templates` (luthier-synthesize)" in (tmp_path / "components.md").read_text("utf-8")
    call(ROOT, example, "docs/generate.py", "--output", tmp_path)
    assert "synthesize" not in (tmp_path / "recipe.md").read_text("utf-8")


def test_without_the_example_the_step_says_that_its_stage_is_missing(workshop):
    told = planned(workshop, SYNTHESIZE)
    assert any("a step's first key is its stage, and 'synthesize' is none" in line for line in told)


@pytest.mark.slow
def test_the_example_installs_from_its_wheel_and_its_stage_runs(workshop, tmp_path):
    for source in (ROOT, EXAMPLE):
        build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "wheels", source]
        call(tmp_path, dict(os.environ), *build)
    home = tmp_path / "fresh"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    wheels = sorted((tmp_path / "wheels").glob("*.whl"))
    assert len(wheels) == 2
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", *wheels], check=True, capture_output=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LUTHIER", "PYTHON"))}
    subprocess.run([python, "-c", CHECK_PAIRS], cwd=workshop, env=clean, check=True, capture_output=True)
