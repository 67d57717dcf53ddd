"""Recipes: every error at once with its position, overrides, references, and text that is anything at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.errors import InputError
from luthier.nodes import RecipeError, dump_yaml, parse_yaml
from luthier.plugins import Registry, load_plugins
from luthier.recipe import RecipeSpec, load_recipe, parse_recipe, recipe_from_mapping
from luthier.schema import example_step
from luthier.steps import ComponentSpec
from luthier.substitution import parse_override

PLUGIN = '''
from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval

from luthier import Location, component, hookimpl


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    valid: float = 0.02
    test: float = 0.05


def reader(*, path: Location, more: list[Location] = [], limit: int | None = None):
    """Read."""


Fraction = Annotated[float, Interval(gt=0, le=1)]


def near_duplicates(data, *, threshold: Fraction = 0.8, mode: Literal["fast", "slow"] = "fast"):
    """Deduplicate."""


def length(frame, *, words: frozenset[str] = frozenset(), note: str = "", weights: dict[str, float] = {}):
    """Drop the short."""


@component(gives="prompt-completion")
def summarization(frame, *, prompt: str = "{text}", split: Split = Split()):
    """Format."""


def lora(model, data, *, rank: int = 16, rate: float = 1e-4, bias: bool = False):
    """Tune."""


def rouge(subject, data):
    """Measure."""


def runner(model, *, batch: int = 1, dtype: str = "auto"):
    """Load."""


@hookimpl
def luthier_sources():
    return [reader]

@hookimpl
def luthier_cleaners():
    return [near_duplicates, length]

@hookimpl
def luthier_formatters():
    return [summarization]

@hookimpl
def luthier_tuners():
    return [lora]

@hookimpl
def luthier_validators():
    return [rouge]

@hookimpl
def luthier_runtimes():
    return [runner]
'''

RECIPE = """\
luthier: 1
name: summaries
seed: 7
steps:
  - source: reader
    path: data/a.txt
  - clean: near-duplicates
    threshold: 0.9
  - format: summarization
    prompt: "Summarize:\\n{text}"
    split: {test: 0.1}
  - tune: lora
    rank: 8
  - validate: rouge
    gate: {rougeL: {at_least: base + 0.10, confidence: 0.95}}
    runtime: runner
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    file = tmp_path_factory.mktemp("plugins") / "parts.py"
    file.write_text(PLUGIN)
    registry = load_plugins(local=[file], environ={"LUTHIER_PLUGINS": "parts"})
    assert registry.broken == ()
    return registry


def parse(registry: Registry, text: str, **overrides: Any) -> RecipeSpec:
    directory = Path("/data/project")
    return parse_recipe(text, registry, path=Path("recipe.yaml"), directory=directory, overrides=overrides).checked()


def errors(registry: Registry, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse(registry, dedent(text), **(overrides or {}))
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return str(caught.value).splitlines()


def steps(body: str) -> str:
    return "luthier: 1\nsteps:\n" + "".join(f"  {line}\n" for line in dedent(body).strip().splitlines())


def test_a_recipe(registry: Registry) -> None:
    recipe = parse(registry, RECIPE)
    assert (recipe.name, recipe.seed, recipe.text) == ("summaries", 7, RECIPE)
    read, clean, form, tune, validate = recipe.steps
    assert [step.id for step in recipe.steps] == ["reader", "near-duplicates", "summarization", "lora", "rouge"]
    assert read.config == {"path": "/data/project/data/a.txt", "more": [], "limit": None}
    assert clean.config == {"threshold": 0.9, "mode": "fast"}
    assert form.config == {"prompt": "Summarize:\n{text}", "split": {"valid": 0.02, "test": 0.1}}
    assert tune.component is registry.find("tune", "lora")
    assert str(tune.position) == "recipe.yaml:12:5"
    assert {key: str(place) for key, place in tune.positions.items()} == {"rank": "recipe.yaml:13:5"}
    assert validate.gate == {"rougeL": {"at_least": "base + 0.10", "confidence": 0.95}}
    assert validate.runtime == ComponentSpec("runner", {"batch": 1, "dtype": "auto"})


def test_a_file_in_another_folder(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my recipe.yaml").write_bytes(b"\xef\xbb\xbf" + RECIPE.replace("name: summaries\n", "").encode())
    monkeypatch.chdir(tmp_path.parent)
    recipe = load_recipe(Path(tmp_path.name) / "my recipe.yaml", registry).checked()
    assert recipe.name == "my recipe"
    assert recipe.directory == tmp_path
    assert recipe.steps[0].config["path"] == str(tmp_path / "data" / "a.txt")


def test_every_error_at_once_with_its_place(registry: Registry) -> None:
    text = """\
    luthier: 1
    sed: 3
    steps:
      - source: reader
      - clean: near-duplicate
      - clean: near-duplicates
        treshold: 0.8
        mode: quick
      - format: summarization
        split: {tset: 0.1, valid: "0.2"}
      - tune: lora
        bias: 1
        rank: yes
      - tun: lora
      - validate: rouge
        gate: {rougeL: {at_lest: 0.1}}
        runtime: runer
    """
    assert errors(registry, text) == [
        "recipe.yaml:2:1: sed: unknown key; did you mean 'seed'?",
        "recipe.yaml:4:5: steps[0].path: required, but missing",
        "recipe.yaml:5:5: steps[1].clean: no clean component is called 'near-duplicate'; "
        "did you mean 'near-duplicates'?",
        "recipe.yaml:7:5: steps[2].treshold: unknown key; did you mean 'threshold'?",
        "recipe.yaml:8:5: steps[2].mode: input should be 'fast' or 'slow', not 'quick'",
        "recipe.yaml:10:13: steps[3].split.tset: unknown key; did you mean 'test'?",
        "recipe.yaml:10:24: steps[3].split.valid: input should be a valid number, not '0.2'",
        "recipe.yaml:12:5: steps[4].bias: input should be a valid boolean, not 1",
        "recipe.yaml:13:5: steps[4].rank: input should be a valid integer, not 'yes'",
        "recipe.yaml:14:5: steps[5].id: a second step with the id 'lora'; the first (line 11) has it already; "
        "give one of them an `id`",
        "recipe.yaml:14:5: steps[5].tun: a step's first key is its stage, and 'tun' is none; did you mean 'tune'?",
        "recipe.yaml:16:12: steps[6].gate.rougeL: says neither at_least nor at_most",
        "recipe.yaml:16:21: steps[6].gate.rougeL.at_lest: unknown key: did you mean 'at_least'?",
        "recipe.yaml:17:5: steps[6].runtime: no runtime component is called 'runer'; did you mean 'runner'?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "recipe.yaml:1:1: the recipe is empty; `luthier init` writes one to start from"),
        ("# only a comment\n", "recipe.yaml:1:1: the recipe is empty; `luthier init` writes one to start from"),
        ("just words", "recipe.yaml:1:1: a recipe is a mapping with the keys luthier, name, seed, steps"),
        ("luthier: 1\n\tname: x", "indent with spaces: YAML allows no tabs there"),
        ("luthier: 1\nluthier: 1\n", "recipe.yaml:2:1: the key 'luthier' again; it is already on line 1"),
        ("luthier: [1\n", "recipe.yaml:2:1: not valid YAML: "),
        ("name: a: b", "recipe.yaml:1:8: not valid YAML: "),
        ("name: !!python/object:os.system x", "recipe.yaml:1:7: the tag tag:yaml.org,2002:python/object:os.system; "),
        ("a: 1\n---\nb: 2", "recipe.yaml:2:1: a second document; a recipe is one"),
        ("a: *b", "recipe.yaml:1:4: the alias *b has no anchor before it"),
        ("a: &a [*a]", "recipe.yaml:1:8: the alias *a contains itself"),
        ("[1]: 2", "recipe.yaml:1:1: a key that is not a simple name"),
        ("seed: .inf", "recipe.yaml:1:7: .inf is not a finite number; quotes make it a string"),
        ("seed: 1e999", "recipe.yaml:1:7: 1e999 is not a finite number; quotes make it a string"),
        ("seed: " + "9" * 400, "recipe.yaml:1:7: a number of more than 300 digits; quotes make it a string"),
        ('name: "\\ud800"', "recipe.yaml:1:7: a lone surrogate, which is no character"),
        ("name: a\x00b", "recipe.yaml:1:8: not valid YAML: "),
        ('name: "\\U99999999"', "recipe.yaml:1:1: not valid YAML: "),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "more than 100000 values, with the aliases expanded",
        ),
        (
            "luthier: 2\nnew: thing",
            "recipe.yaml:1:1: luthier: the recipe has the format 2; this Luthier reads up to 1; pip",
        ),
    ],
)
def test_text_that_is_no_recipe_is_one_clean_error(registry: Registry, text: str, expected: str) -> None:
    (line,) = errors(registry, text)
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x", "recipe.yaml:1:1: luthier: required, but missing; begin the recipe with `luthier: 1`"),
        ("luthier: one", "luthier: the format's version is 1, not 'one'"),
        ("luthier: 1\nname: a/b", "recipe.yaml:2:1: name: a name of letters, digits, spaces, "),
        ("luthier: 1\nseed: -1", "recipe.yaml:2:1: seed: a whole number from 0 to 4294967295, not -1"),
        ("luthier: 1\nseed: true", "not True"),
        ("luthier: 1", "recipe.yaml:1:1: steps: required, but missing"),
        ("luthier: 1\nsteps: []", "recipe.yaml:2:1: steps: a list of at least one step"),
        (steps("- reader"), "recipe.yaml:3:5: steps[0]: a step is a mapping; write `- STAGE: COMPONENT`"),
        (steps("- {}"), "recipe.yaml:3:5: steps[0]: a step is a mapping"),
        (steps("- threshold: 0.5\n  clean: near-duplicates"), "and 'threshold' is none; put `clean` first"),
        (steps("- clean:"), "recipe.yaml:3:5: steps[0].clean: the name of a component, not None"),
        (steps("- clean: [a]"), "steps[0].clean: the name of a component, not ['a']"),
        (steps("- runtime: runner"), "'runtime' is none"),
        (
            steps("- tune: lora\n  gate: {a: {at_least: 1}}"),
            "recipe.yaml:4:5: steps[0].gate: only a `validate` step has a gate",
        ),
        (steps("- tune: lora\n  runtime: runner"), "steps[0].runtime: only a `validate` step has a runtime"),
        (
            steps("- tune: lora\n  environment: x"),
            "steps[0].environment: one of own or main, not 'x'",
        ),
        (steps("- validate: rouge\n  gate: 3"), "steps[0].gate: a gate maps metrics to bounds"),
        (
            steps("- validate: rouge\n  runtime: 3"),
            "steps[0].runtime: the name of a runtime, or a mapping with its `name`, not 3",
        ),
        (steps("- tune: lora\n  id: a b"), "steps[0].id: an id of letters, digits, `-` and `_`, not 'a b'"),
        (
            steps("- tune: lora\n- tune: lora"),
            "recipe.yaml:4:5: steps[1].id: a second step with the id 'lora'; the first (line 3)",
        ),
        (
            steps("- tune: lora\n  id: x\n- tune: lora\n  id: x"),
            "recipe.yaml:6:5: steps[1].id: a second step with the id 'x'",
        ),
        (steps("- tune: lora\n  from: lore"), "steps[0].from: no step is called 'lore'; earlier steps: none"),
        (
            steps("- tune: lora\n  from: lora"),
            "recipe.yaml:4:5: steps[0].from: 'lora' is not an earlier step; move it up",
        ),
        (
            steps("- tune: lora\n- validate: rouge\n  from: lara"),
            "steps[1].from: no step is called 'lara'; did you mean 'lora'?",
        ),
        (
            steps("- tune: lora\n- validate: rouge\n  from: [3]"),
            "recipe.yaml:5:12: steps[1].from: the id of an earlier step",
        ),
        (
            steps("- clean: length\n  weights: {a: b}"),
            "recipe.yaml:4:15: steps[0].weights.a: input should be a valid number, not 'b'",
        ),
        (
            steps("- clean: length\n  words: [a, 3]"),
            "recipe.yaml:4:16: steps[0].words[1]: input should be a valid string, not 3",
        ),
        (steps("- format: summarization\n  split: 3"), "recipe.yaml:4:5: steps[0].split: "),
        (steps("- tune: lora\n  <<: {rank: 3}"), "steps[0].<<: unknown key"),
        (steps("- tune: lora\n  form: x"), "steps[0].form: unknown key; did you mean 'from'?"),
    ],
)
def test_each_thing_that_can_be_wrong(registry: Registry, text: str, expected: str) -> None:
    assert any(expected in line for line in errors(registry, text)), errors(registry, text)


def test_a_component_of_ours_that_is_missing_names_the_command() -> None:
    assert errors(Registry(), steps("- export: genai")) == [
        "recipe.yaml:3:5: steps[0].export: no export component is called 'genai': luthier-onnx, which gives it, "
        "is not installed; pip install luthier-onnx"
    ]


def test_a_file_that_cannot_be_read(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the recipe cannot be read: No such file"):
        load_recipe(tmp_path / "gone.yaml", registry)
    with pytest.raises(RecipeError, match="the recipe cannot be read: Is a directory"):
        load_recipe(tmp_path, registry)
    (tmp_path / "latin.yaml").write_bytes("luthier: 1\nname: été".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml:2:7: the recipe is not UTF-8"):
        load_recipe(tmp_path / "latin.yaml", registry)


def test_only_the_core_types_of_yaml_exist(registry: Registry) -> None:
    recipe = parse(
        registry,
        steps("""
        - clean: length
          words: [yes, no, on, 2024-01-01, 12:30, 1_000, "3", =]
          note: |
            two
            lines
          weights: {null: 0x10, "2": 0o10, y: .5, z: +3}
        """),
    )
    config = recipe.steps[0].config
    assert config["words"] == sorted(["yes", "no", "on", "2024-01-01", "12:30", "1_000", "3", "="])
    assert config["note"] == "two\nlines\n"
    assert config["weights"] == {"null": 16.0, "2": 8.0, "y": 0.5, "z": 3.0}


def test_anchors_and_aliases(registry: Registry) -> None:
    text = steps("""
    - clean: length
      id: a
      words: &words [x]
    - clean: length
      id: b
      words: *words
    """)
    assert [step.config["words"] for step in parse(registry, text, **{"a.words": ["y"]}).steps] == [["y"], ["x"]]


def test_names_of_steps(registry: Registry) -> None:
    recipe = parse(
        registry,
        steps("""
        - source: reader
          path: x
        - clean: length
          from: source
        - clean: length
          id: second
          from: [length]
        """),
    )
    assert [step.source for step in recipe.steps] == [(), ("reader",), ("length",)]
    text = steps("- clean: length\n- clean: length\n  id: b\n- clean: near-duplicates\n  from: clean")
    assert "'clean' could be any of the steps length, b" in errors(registry, text)[0]


def test_overrides(registry: Registry) -> None:
    recipe = parse(
        registry,
        RECIPE,
        **{
            "lora.rank": 4,
            "tune.bias": True,
            "summarization.split.valid": 0.3,
            "seed": 9,
            "name": "other",
            "reader.more": ["b.txt", "c.txt"],
            "reader.more.1": "d.txt",
            "rouge.gate.rougeL.at_least": 0.2,
        },
    )
    read, _, form, tune, validate = recipe.steps
    assert (recipe.seed, recipe.name) == (9, "other")
    assert (tune.config["rank"], tune.config["bias"]) == (4, True)
    assert form.config["split"] == {"valid": 0.3, "test": 0.1}
    assert read.config["more"] == ["/data/project/b.txt", "/data/project/d.txt"]
    assert validate.gate == {"rougeL": {"at_least": 0.2, "confidence": 0.95}}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("lora.rnak", 8, "--set lora.rnak: unknown key; did you mean 'rank'?"),
        ("lora.rank", "8", "--set lora.rank: input should be a valid integer, not '8'"),
        ("summarization.split.tset", 1.0, "--set summarization.split.tset: unknown key; did you mean 'test'?"),
        ("lara.rank", 8, "--set lara.rank: no step is called 'lara'; did you mean 'lora'?"),
        ("sed", 8, "--set sed: no step is called 'sed'; did you mean 'seed'?"),
        ("lora", 8, "--set lora: it names a step, but none of its keys; write --set lora.KEY=VALUE"),
        ("lora.tune", "x", "--set lora.tune: 'tune' says which step it is, and cannot be set; edit the recipe"),
        ("lora.id", "x", "--set lora.id: 'id' says which step it is, and cannot be set; edit the recipe"),
        ("seed", "x", "--set seed: a whole number from 0 to 4294967295, not 'x'"),
        ("seed", float("nan"), "--set seed: nan is not a finite number"),
        ("seed", object, "--set seed: <class 'object'> is a type, which a recipe cannot hold"),
        ("", 1, "--set : no step is called ''; the steps are reader, near-duplicates, summarization, lora, rouge"),
        ("lora.rank", "${env:LUTHIER_NO}", "--set lora.rank: the environment variable LUTHIER_NO is not set; export"),
    ],
)
def test_overrides_that_are_wrong(registry: Registry, path: str, value: object, expected: str) -> None:
    (line,) = errors(registry, RECIPE, {path: value})
    assert line.startswith(expected)


def test_reading_an_override() -> None:
    assert parse_override("lora.rank=8") == ("lora.rank", 8)
    assert parse_override("a.b = [1, x]") == ("a.b", [1, "x"])
    assert parse_override("a.b=yes") == ("a.b", "yes")
    assert parse_override("a.b=") == ("a.b", None)
    assert parse_override('a.b="x=y"') == ("a.b", "x=y")
    for wrong in ("lora.rank", "=8", "a=[1", "a=!!x y"):
        with pytest.raises(InputError, match="--set"):
            parse_override(wrong)


def test_references(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_TEST_RANK", "12")
    monkeypatch.setenv("LUTHIER_TEST_BRACES", "${env:HOME}")
    recipe = parse(
        registry,
        steps("""
        - source: reader
          path: ${recipe_dir}/in/${env:LUTHIER_TEST_RANK}.txt
        - clean: length
          note: "${env:LUTHIER_TEST_RANK} $${escaped} $ {text} ${env:LUTHIER_TEST_BRACES}"
        - tune: lora
          rank: ${env:LUTHIER_TEST_RANK}
        """),
    )
    assert recipe.steps[0].config["path"] == "/data/project/in/12.txt"
    assert recipe.steps[1].config["note"] == "12 ${escaped} $ {text} ${env:HOME}"
    assert recipe.steps[2].config["rank"] == 12


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "${env:LUTHIER_TEST_RANG}",
            "the environment variable LUTHIER_TEST_RANG is not set; did you mean LUTHIER_TEST_RANK?",
        ),
        ("${env:LUTHIER_TEST_RANK:-3}", "there is no reference ${env:LUTHIER_TEST_RANK:-3}; there are ${env:NAME} and"),
        ("${HOME}", "there is no reference ${HOME}; there are ${env:NAME} and ${recipe_dir}"),
        ("${recipe_dir", "'${recipe_dir' is not closed"),
    ],
)
def test_references_that_are_wrong(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv("LUTHIER_TEST_RANK", "12")
    (line,) = errors(registry, steps(f'- tune: lora\n  rank: "{value}"'))
    assert line.startswith(f"recipe.yaml:4:11: steps[0].rank: {expected}")


def test_a_recipe_from_python(registry: Registry) -> None:
    mapping = {"luthier": 1, "name": "n", "steps": [{"source": "reader", "path": Path("a.txt"), "more": ("b",)}]}
    recipe = recipe_from_mapping(mapping, registry, Path("/data/project"), {"reader.limit": 3}).checked()
    assert recipe.steps[0].config == {"path": "/data/project/a.txt", "more": ["/data/project/b"], "limit": 3}
    assert recipe.steps[0].position is None
    with pytest.raises(RecipeError, match=r"steps\[0\].pth: unknown key; did you mean 'path'\?"):
        recipe_from_mapping({"luthier": 1, "steps": [{"source": "reader", "pth": "a"}]}, registry, Path("/")).checked()
    with pytest.raises(RecipeError, match="which a recipe cannot hold"):
        recipe_from_mapping({"luthier": 1, "steps": [{"tune": "lora", "rank": 1j}]}, registry, Path("/")).checked()


def test_example_steps(registry: Registry) -> None:
    assert example_step(registry.find("clean", "near-duplicates")) == (
        "- clean: near-duplicates\n  # threshold: 0.8\n  # mode: fast\n"
    )
    for component in registry.components:
        text = example_step(component)
        if component.stage.name:
            assert parse(registry, "luthier: 1\nsteps:\n" + text).steps[0].component is component
            assert parse(registry, "luthier: 1\nsteps:\n" + text.replace("# ", "")).steps[0].component is component


ANY_CHARACTER = st.characters(exclude_categories=["Cs"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(ANY_CHARACTER, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_", max_size=6), inner, max_size=4),
    max_leaves=8,
)
KEYS = "luthier name seed steps source clean format tune validate id from gate runtime environment path rank split"
WORDS = "reader length lora rouge near-duplicates summarization runner data ${recipe_dir} ${x"
keys = st.sampled_from(KEYS.split())
words = st.sampled_from(WORDS.split())
maps = st.dictionaries(keys, values | words | st.dictionaries(keys, words | values, max_size=3), max_size=6)
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)


def outcome(read: Callable[[], RecipeSpec]) -> bool:
    """Whether the recipe is read, or refused with reasons; anything else that is raised fails the test."""
    problems = None
    try:
        recipe = read()
    except RecipeError as error:
        problems = error.problems
    return bool(recipe.steps) if problems is None else all(problem.message for problem in problems) and bool(problems)


@relaxed
@given(text=st.text(max_size=200) | st.text("-:{}[]&*!|>'\"%@#\n\t ab1,.?~\\ux", max_size=80))
def test_any_text_is_a_recipe_or_a_recipe_error(registry: Registry, text: str) -> None:
    assert outcome(lambda: parse(registry, text))


@relaxed
@given(cut=st.integers(0, len(RECIPE)), length=st.integers(0, 12), paste=st.text(max_size=6))
def test_a_damaged_recipe_is_a_recipe_or_a_recipe_error(registry: Registry, cut: int, length: int, paste: str) -> None:
    assert outcome(lambda: parse(registry, RECIPE[:cut] + paste + RECIPE[cut + length :]))


@relaxed
@given(
    top=maps,
    steps=st.lists(maps | values, max_size=4),
    overrides=st.dictionaries(st.text("a.lorank0", max_size=9), values, max_size=2),
)
def test_any_mapping_is_a_recipe_or_a_recipe_error(
    registry: Registry, top: dict[str, Any], steps: list[Any], overrides: dict[str, Any]
) -> None:
    mapping = {"luthier": 1, **top, "steps": steps}
    assert outcome(lambda: recipe_from_mapping(mapping, registry, Path("/data"), overrides).checked())


@relaxed
@given(value=values | st.dictionaries(st.text(ANY_CHARACTER, max_size=9), values, max_size=3))
def test_values_survive_as_yaml(value: Any) -> None:
    assert parse_yaml(f"top:\n{dump_yaml([value], '  ')}", "f").to_value() == {"top": [value]}


@relaxed
@given(
    seed=st.integers(0, 2**32 - 1),
    note=st.text(ANY_CHARACTER, max_size=60).filter(lambda text: "${" not in text),
    words=st.frozensets(st.text(ANY_CHARACTER, max_size=12).filter(lambda w: "${" not in w)),
    weights=st.dictionaries(st.text("abc 1:#-?", max_size=5), st.floats(allow_nan=False, allow_infinity=False)),
    rank=st.integers(-(10**20), 10**20),
)
def test_every_valid_recipe_survives_its_own_text(
    registry: Registry, seed: int, note: str, words: frozenset[str], weights: dict[str, float], rank: int
) -> None:
    length = {"clean": "length", "note": note, "words": sorted(words), "weights": weights}
    mapping = {"luthier": 1, "name": "n", "seed": seed, "steps": [length, {"tune": "lora", "rank": rank}]}
    built = recipe_from_mapping(mapping, registry, Path("/data")).checked()
    again = parse(registry, built.text)
    assert built.steps[0].config["note"] == note
    assert built.steps[0].config["weights"] == weights
    assert (again.name, again.seed) == (built.name, built.seed)
    assert [(s.id, s.config, s.source) for s in again.steps] == [(s.id, s.config, s.source) for s in built.steps]


@pytest.mark.parametrize(
    ("text", "value"), [("a.b=null", None), ("a.b=~", None), ("a.b=[1, 2]", [1, 2]), ("a.b=x y", "x y")]
)
def test_an_override_holds_any_one_value(text, value):
    assert parse_override(text) == ("a.b", value)


def test_an_override_of_several_lines_is_refused():
    with pytest.raises(InputError, match="more than one value"):
        parse_override("a.b=8\n- 9")


def test_a_runtime_may_have_parameters(registry: Registry) -> None:
    text = "luthier: 1\nsteps:\n  - validate: rouge\n    runtime: {name: runner, batch: 4}\n"
    (step,) = parse(registry, text).steps
    assert step.runtime == ComponentSpec("runner", {"batch": 4, "dtype": "auto"})
    (plain,) = parse(registry, text.replace("{name: runner, batch: 4}", "runner")).steps
    assert plain.runtime == ComponentSpec("runner", {"batch": 1, "dtype": "auto"})
    for runtime, expected in {
        "{name: runner, bach: 4}": ("4:29", "batch"),
        "{name: runer}": ("4:15", "runner"),
        "{batch: 4}": ("4:5", "its `name`"),
        "{name: runner, batch: four}": ("4:29", "integer"),
    }.items():
        with pytest.raises(RecipeError) as caught:
            parse(registry, text.replace("{name: runner, batch: 4}", runtime))
        assert expected[0] in str(caught.value), str(caught.value)
        assert expected[1] in str(caught.value)
