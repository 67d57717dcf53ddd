"""Discovery over the plugins that are installed: whatever takes part in making a model small is on a route."""

from __future__ import annotations

import pytest

import luthier
from luthier import InputError
from luthier_optimize.material import Material, Texts
from luthier_optimize.routes import Limits, Route, chosen_only, find_routes, pruned_routes


def material(form: str, texts: str = "prompt-completion") -> Material:
    return Material("model", [], "lora", form, Texts([], "pairs", texts, 0))


@pytest.fixture(scope="module")
def registry() -> luthier.Registry:
    return luthier.load_plugins()


def through(routes: list[Route]) -> set[str]:
    return {f"{stop.component}" for route in routes for stop in route.stops}


def test_every_component_that_takes_the_model_is_on_a_route(registry):
    routes = find_routes(registry, material("causal-lm"), Limits(0.02))
    forms = {route.form for route in routes}
    able = [each for each in registry.of_stage("export") if each.accepts("model", "causal-lm")]
    for each in registry.of_stage("quantize"):
        if "model" in each.inputs:
            able += [each] if each.accepts("model", "causal-lm") else []
        elif any(each.accepts("onnx", form) for form in forms):
            able.append(each)
    assert through(routes) == set(map(str, able))
    best = next(route for route in routes if route.label == "genai > int8")
    pruned = pruned_routes(registry, material("causal-lm"), Limits(0.01), best)
    assert through(pruned) >= {str(each) for each in registry.of_stage("prune")}
    assert all(route.rest == best.label for route in pruned)


def test_one_setting_is_changed_at_a_time_and_budgets_are_the_limits(registry):
    labels = {route.label for route in find_routes(registry, material("causal-lm"), Limits(0.02, 110e6))}
    assert {"genai > int4", "genai > int4 method=rtn", "genai > int4 method=hqq", "genai > int4 head=int4"} <= labels
    assert {"mixed max_kl=0.02 > genai", "mixed max_megabytes=110.0 > genai"} <= labels
    assert not any(label.count("=") > 1 for label in labels)
    without = {route.label for route in find_routes(registry, material("causal-lm"), Limits(None, 110e6))}
    assert not any("max_kl" in label for label in without)


def test_what_prepares_a_model_comes_before_each_quantizer_of_what_is_exported(registry):
    routes = find_routes(registry, material("causal-lm"), Limits(0.02))
    labels = {route.label for route in routes}
    assert {"smooth > genai > int8", "smooth > genai > int4"} <= labels
    assert "smooth > genai" not in labels
    assert not any(route.is_prepared for route in routes if "gptq" in route.names)
    assert not any("smooth" in route.names for route in find_routes(registry, material("seq2seq-lm"), Limits(0.02)))
    steps = next(route for route in routes if route.label == "smooth > genai > int8").steps(material("causal-lm"))
    assert [next(iter(step.items())) for step in steps] == [
        ("quantize", "smooth"), ("export", "genai"), ("quantize", "int8"),
    ]  # fmt: skip


def test_an_encoder_decoder_goes_its_own_ways(registry):
    routes = find_routes(registry, material("seq2seq-lm"), Limits(0.02))
    assert "dynamo > dynamic-int8" in {route.label for route in routes}
    assert "export:genai" not in through(routes)


def test_examples_that_calibration_cannot_read_are_told(registry):
    routes = find_routes(registry, material("causal-lm", texts="preference"), Limits(0.02))
    reasons = {route.label: route.reason for route in routes}
    assert "gptq takes examples of the form chat or" in reasons["gptq > genai"]
    assert reasons["genai > int8"] == ""


def test_what_nothing_here_can_run_is_left_out_with_what_to_install(registry, monkeypatch):
    monkeypatch.setattr("luthier.components.is_distribution", lambda name: name != "llama-cpp-python")
    routes = find_routes(registry, material("causal-lm"), Limits(0.02))
    left_out = {each.label: each.reason for each in routes if "gguf" in each.names}
    assert set(left_out) == {"gguf", "gguf > k-quants"}
    for reason in left_out.values():
        assert "llama-cpp-python, which is not installed" in reason
        assert "pip install 'luthier-gguf[llama]'" in reason


def test_what_nothing_exports_is_refused(registry):
    with pytest.raises(InputError, match="no installed exporter takes a model of the form sculpture"):
        find_routes(registry, material("sculpture"), Limits(0.02))


def test_only_and_skip_keep_what_the_others_are_compared_with(registry):
    routes = find_routes(registry, material("causal-lm"), Limits(0.02))
    assert [route.label for route in chosen_only(routes, ["int8"], [])] == [
        "genai",
        "genai > int8",
        "smooth > genai > int8",
    ]
    assert "int4" not in {name for route in chosen_only(routes, [], ["int4"]) for name in route.names}
