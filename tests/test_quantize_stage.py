"""The stage `quantize`: a component gives the kind that it takes, and what it took first is the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

import luthier
from luthier.errors import GateRefused, InputError
from luthier.plugins import load_plugins

PLUGIN = '''
import json

from luthier import component, hookimpl


def forget(ctx, source, target, answers):
    known = json.loads((source / target).read_text())
    (ctx.output / target).write_text(json.dumps(dict(list(known.items())[answers:]), sort_keys=True))


@component(needs={"model": {"toy-lm"}})
def round_off(model, ctx, *, answers: int = 5) -> None:
    """Forget some answers of a model."""
    forget(ctx, model.path, "model.json", answers)


@component(needs={"onnx": {"toy-onnx"}})
def pack(onnx, ctx, *, answers: int = 5) -> None:
    """Forget some answers of an exported model."""
    forget(ctx, onnx.path, "frozen.json", answers)


def neither(ctx) -> None:
    """Take no model."""


@hookimpl
def luthier_quantizers():
    return [round_off, pack]
'''


@pytest.fixture
def quantizing(project: Path, monkeypatch: pytest.MonkeyPatch):
    """Put steps into the toys' recipe before and after the export."""
    (project / "plugins.d" / "quantizers.py").write_text(PLUGIN)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,quantizers")
    recipe = project / "recipe.yaml"
    text = recipe.read_text()

    def write(before: str = "", after: str = "") -> Path:
        recipe.write_text(text.replace("  - export: freeze\n", f"{before}  - export: freeze\n{after}"))
        return recipe

    return write


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [("", "  - quantize: pack\n", "onnx"), ("  - quantize: round-off\n", "", "model")],
)
def test_a_quantizer_gives_what_it_takes_and_is_compared_with_what_was_there_before(quantizing, before, after, kind):
    recipe = quantizing(before, after)
    nodes = {node.node.id: node.node for node in luthier.plan(recipe)}
    step = nodes["pack" if after else "round-off"]
    assert (step.kind, step.form) == (kind, {"onnx": "toy-onnx", "model": "toy-lm"}[kind])
    assert nodes["agreement"].inputs["reference"] is nodes["teach"]
    # The gate that compares with the model before notices.
    with pytest.raises(GateRefused, match="agreement: agreement is 0"):
        luthier.run(recipe, display=False, jobs=1)


def test_in_a_branch_a_model_is_compared_with_what_that_branch_began_with(quantizing):
    recipe = quantizing("", "  - quantize: pack\n")
    text = recipe.read_text()
    again = text[text.index("  - tune: teach") : text.index("  - export: freeze")]
    again = again.replace("teach", "teach\n    id: other")
    recipe.write_text(f"""{text}
{again}  - validate: accuracy
    id: unexported
  - export: freeze
    id: frozen
  - validate: agreement
    id: of-other
  - validate: accuracy
    id: of-both
    from: pack
""")
    nodes = {node.node.id: node.node for node in luthier.plan(recipe)}
    assert nodes["of-other"].inputs["reference"] is nodes["other"]
    assert nodes["agreement"].inputs["reference"] is nodes["teach"]
    assert nodes["of-both@reference"].inputs["subject"] is nodes["teach"]
    assert "unexported@reference" not in nodes
    assert nodes["of-both@base"].inputs["subject"] is nodes["unexported@base"].inputs["subject"]


def test_a_recipe_names_what_a_validator_compares_with(quantizing):
    recipe = quantizing("", "  - quantize: pack\n    answers: 0\n")
    kind = next(line for line in recipe.read_text().splitlines() if "architecture:" in line).split(": ")[1]
    nodes = {
        node.node.id: node.node
        for node in luthier.plan(recipe, overrides={"agreement.reference": kind, "accuracy.reference": "freeze"})
    }
    assert nodes["agreement"].inputs["reference"] is nodes[kind]
    assert nodes["accuracy@reference"].inputs["subject"] is nodes["freeze"]
    # Without an export, too, there is something to compare with.
    text = recipe.read_text().replace("  - export: freeze\n  - quantize: pack\n    answers: 0\n", "")
    recipe.write_text(text)
    with pytest.raises(InputError, match=r"name what to compare with: `reference: STEP`"):
        luthier.plan(recipe)
    nodes = {node.node.id: node.node for node in luthier.plan(recipe, overrides={"agreement.reference": kind})}
    assert nodes["agreement"].inputs["reference"] is nodes[kind]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            {"agreement.reference": "pack"},
            "reference: 'pack' gives the model that is measured; Name another.",
        ),
        ({"agreement.reference": "riddles"}, "agreement.reference: 'riddles' gives a dataset, not a model"),
        ({"agreement.reference": "tech"}, "no step is called 'tech'; did you mean 'teach'?"),
        ({"teach.reference": "blank"}, "only a `validate` step has a reference"),
    ],
)
def test_a_reference_that_is_none_is_refused(quantizing, override, says):
    with pytest.raises(InputError) as caught:
        luthier.plan(quantizing("", "  - quantize: pack\n"), overrides=override)
    assert says in str(caught.value)


def test_a_model_that_was_quantized_can_be_validated_without_an_export(quantizing):
    recipe = quantizing()
    text = recipe.read_text().replace("  - export: freeze\n", "  - quantize: round-off\n    answers: 0\n")
    recipe.write_text(text)
    assert luthier.run(recipe, display=False, jobs=1).metrics["agreement"] == {"agreement": 1.0}


def test_a_quantizer_of_a_kind_or_form_that_is_not_there_is_refused(quantizing):
    with pytest.raises(InputError, match="needs an onnx, but no earlier step gives one"):
        luthier.plan(quantizing("  - quantize: pack\n"))
    recipe = quantizing("", "  - quantize: pack\n    id: pack\n")
    (recipe.parent / "plugins.d" / "quantizers.py").write_text(PLUGIN.replace('{"toy-onnx"}', '{"genai"}'))
    with pytest.raises(InputError, match="takes onnx of the form genai; 'freeze' gives toy-onnx"):
        luthier.plan(recipe)


def test_a_quantizer_that_takes_no_model_is_left_out(quantizing):
    path = quantizing().parent / "plugins.d" / "quantizers.py"
    path.write_text(PLUGIN.replace("[round_off, pack]", "[neither]"))
    [broken] = load_plugins(local=[path], environ={"LUTHIER_PLUGINS": "quantizers"}).broken
    assert "must ask for exactly one of 'model', 'onnx'" in broken.error
