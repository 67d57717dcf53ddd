"""Training of some layers: the kept activations change nothing, and survive what runs survive."""

from __future__ import annotations

import logging
import shutil

import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import luthier_tune
from luthier import InputError, LuthierError, Model
from luthier.artifacts import build_manifest
from luthier.testing import arguments, make_context
from luthier_models.loading import load_causal_lm
from luthier_models.normalise import save_model
from luthier_models.packing import PackedModel
from luthier_models.testing import tiny_tokenizer, write_tiny_decoder, write_tiny_model
from luthier_tune.activations import ActivationCache
from luthier_tune.lean import LeanModel
from luthier_tune.some_layers import first_trained_layer
from luthier_tune.split import split

CONFIG = {"top": 1, "learning_rate": 3e-3, "valid_examples": 4, "warmup_steps": 2, "max_epochs": 3}
PAIRS = [([1, 30, 31, 32, 33], [40, 41, 2]), ([1, 50, 51], [60, 61, 62, 63, 2]), ([1, 70, 71, 72], [80, 2])]


def tuned(directory, model, data, **config):
    ctx = make_context(directory, seed=3)
    options = {name: value for name, value in (CONFIG | config).items() if value is not None}
    luthier_tune.layers(model, data, ctx, **arguments(luthier_tune.layers, **options))
    return ctx


def identity(ctx):
    return build_manifest(ctx.output, "model", "causal-lm").hash


def losses(ctx):
    return pl.read_parquet(ctx.notes / "tables" / "learning-curve.parquet")["loss"].to_list()


def changed(ctx, model):
    before = dict(AutoModelForCausalLM.from_pretrained(model.path).named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(ctx.output).named_parameters())
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def recomputed(tmp_path_factory, tiny, examples):
    return tuned(tmp_path_factory.mktemp("recomputed"), tiny, examples, activations="recompute")


def test_only_the_top_layer_learns(recomputed, tiny):
    values = {name: metric.value for name, metric in recomputed.metrics.items()}
    assert values["valid_loss"] < values["valid_loss_before"] - 1
    assert changed(recomputed, tiny) == {
        name for name, _ in load_causal_lm(tiny.path).named_parameters() if name.startswith("model.layers.1.")
    }


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 2e-3)])
def test_kept_activations_give_the_losses_of_the_whole_model(
    tmp_path, tiny, examples, recomputed, precision, tolerance
):
    ctx = tuned(tmp_path, tiny, examples, activations=precision)
    assert losses(ctx) == pytest.approx(losses(recomputed), rel=tolerance)
    expected = recomputed.metrics["valid_loss"].value
    assert ctx.metrics["valid_loss"].value == pytest.approx(expected, rel=tolerance)


@pytest.fixture
def computed(monkeypatch):
    """The numbers of the examples whose frozen part is computed, as they come."""
    numbers = []
    put = ActivationCache.put

    def note(self, number, activations):
        numbers.append(number)
        return put(self, number, activations)

    monkeypatch.setattr(ActivationCache, "put", note)
    return numbers


def test_the_frozen_layers_are_computed_once_for_each_example(tmp_path, tiny, examples, computed):
    ctx = tuned(tmp_path, tiny, examples, evaluate_every=2)
    assert ctx.metrics["examples"].value == 3 * 20
    assert sorted(computed) == list(range(20 + 4))


def test_a_short_training_computes_no_more_than_it_needs(tmp_path, tiny, examples, computed):
    tuned(tmp_path, tiny, examples, max_epochs=None, max_steps=2)
    assert 8 + 4 <= len(set(computed)) == len(computed) < 20


def test_adapters_in_the_top_layer_are_merged_and_kept(tmp_path, tiny, examples):
    ctx = tuned(tmp_path, tiny, examples, rank=4, learning_rate=5e-3)
    assert ctx.metrics["valid_loss"].value < ctx.metrics["valid_loss_before"].value
    assert {name.split(".")[2] for name in changed(ctx, tiny)} == {"1"}
    ids = torch.tensor([[1, 30, 40, 50, 60]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(ctx.output)(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny.path)
        adapted = PeftModel.from_pretrained(base, ctx.output / "adapter")(ids).logits
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stop_at", [2, 7])
def test_a_killed_step_goes_on_to_the_same_bytes_without_computing_again(tmp_path, tiny, examples, computed, stop_at):
    options = {"checkpoint_minutes": 0.0}
    whole = tuned(tmp_path / "whole", tiny, examples, **options)
    computed.clear()
    ctx = make_context(tmp_path / "killed", seed=3)

    def emit(event):
        if event["type"] == "progress" and event["done"] == stop_at:
            raise KeyboardInterrupt

    ctx._emit = emit
    with pytest.raises(KeyboardInterrupt):
        luthier_tune.layers(tiny, examples, ctx, **arguments(luthier_tune.layers, **(CONFIG | options)))
    resumed = tuned(tmp_path / "killed", tiny, examples, **options)
    assert resumed.events[0]["done"] > 1
    assert losses(resumed) == losses(whole)
    assert identity(resumed) == identity(whole)
    assert sorted(computed) == list(range(20 + 4))


def test_names_choose_what_learns(tmp_path, tiny, examples, caplog):
    caplog.set_level(logging.INFO)
    ctx = tuned(tmp_path / "mlp", tiny, examples, top=None, names=["layers.1.mlp", "norm"], max_epochs=1)
    assert changed(ctx, tiny) == {
        "model.norm.weight",
        *(f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    }
    assert "the 1 lowest layers are frozen" in caplog.text
    ctx = tuned(tmp_path / "all", tiny, examples, top=None, names=["down_proj"], max_epochs=1)
    assert changed(ctx, tiny) == {f"model.layers.{n}.mlp.down_proj.weight" for n in (0, 1)}
    assert "no activations to keep" in caplog.text


def test_a_new_head_on_a_frozen_body(tmp_path, examples):
    untied = Model.at(write_tiny_model(tmp_path / "model", tied=False), "causal-lm", "1" * 64)
    kept = tuned(tmp_path / "kept", untied, examples, top=None, names=["lm_head"], activations="float32")
    assert changed(kept, untied) == {"lm_head.weight"}
    plain = tuned(tmp_path / "plain", untied, examples, top=None, names=["lm_head"], activations="recompute")
    assert losses(kept) == pytest.approx(losses(plain), rel=1e-5)


def test_a_tied_output_layer_is_the_embedding(tiny):
    model = load_causal_lm(tiny.path)
    model.requires_grad_(False)
    model.get_output_embeddings().requires_grad_(True)
    assert first_trained_layer(model) == 0


def test_a_model_that_cannot_be_cut_is_noticed_and_trained_all_the_same(tmp_path, examples, caplog):
    tokenizer = tiny_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=4, n_head=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_model(GPT2LMHeadModel(config), tokenizer, tmp_path / "gpt2")
    model = Model.at(tmp_path / "gpt2", "causal-lm", "2" * 64)
    ctx = tuned(tmp_path / "tuned", model, examples, max_epochs=1)
    assert "cannot be cut at a layer" in caplog.text
    assert {name.split(".")[2] for name in changed(ctx, model)} == {"3"}


def test_layers_inside_of_another_module_are_found(tmp_path, examples, caplog):
    model = Model.at(write_tiny_decoder(tmp_path / "opt", "opt"), "causal-lm", "2" * 64)
    ctx = tuned(tmp_path / "tuned", model, examples, max_epochs=1)
    assert "cannot be cut at a layer" in caplog.text  # It adds positions to what the embedding gives.
    assert {name.removeprefix("model.decoder.layers.").partition(".")[0] for name in changed(ctx, model)} == {"1"}


@pytest.mark.parametrize("kind", [PackedModel, LeanModel])
def test_the_two_parts_are_the_whole(tiny, kind):
    whole = kind(load_causal_lm(tiny.path))
    parts = split(whole, 1)
    beginning = list(range(100, 120))
    pairs = [*PAIRS, ([*beginning, 1, 2], [3, 4]), ([*beginning, 5], [6])]
    (members, row), *others = parts.upper.rows(pairs, 512)
    assert not others
    assert (len(row.ids) < sum(len(given) + len(targets) - 1 for given, targets in pairs)) == whole.shares_beginnings
    ordered = [pairs[member] for member in members]
    with torch.no_grad():
        together = parts.upper.hidden(parts.start(row, ordered, parts.states(ordered)))
        torch.testing.assert_close(together, whole.hidden(row), atol=1e-5, rtol=1e-5)
        # Each document alone has the same states: a cache by example can be packed in any way.
        alone = torch.cat([state for pair in pairs for state in parts.states([pair])])
    torch.testing.assert_close(torch.cat(parts.states(pairs)), alone, atol=1e-5, rtol=1e-5)


def make_cache(directory, **options):
    return ActivationCache(
        directory, [3, 2], 4, **({"precision": "float16", "log": logging.getLogger("test")} | options)
    )


def test_numbers_too_large_for_float16_are_kept_in_float32(tmp_path, caplog):
    cache = make_cache(tmp_path)
    small, large = torch.randn(3, 4), torch.full((2, 4), 1e6)
    assert torch.equal(cache.put(0, small), small.half())
    assert torch.equal(cache.put(1, large), large)
    assert caplog.text.count("too large for float16") == 1
    again = make_cache(tmp_path)
    assert again.stored == 2
    assert torch.equal(again.get(0), small.half())
    assert torch.equal(again.get(1), large)


def test_what_was_not_written_to_its_end_is_not_used(tmp_path):
    cache = make_cache(tmp_path, precision="float32")
    states = torch.randn(3, 4)
    cache.put(0, states)
    assert cache.get(1) is None
    data = bytearray((tmp_path / "float32").read_bytes())
    data[5] ^= 1
    (tmp_path / "float32").write_bytes(data)
    assert make_cache(tmp_path, precision="float32").get(0) is None
    (tmp_path / "index").write_bytes(b"\1")
    assert make_cache(tmp_path, precision="float32").stored == 0


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path, tiny, examples, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("luthier_tune.activations.shutil.disk_usage", lambda path: usage)
    with pytest.raises(LuthierError, match=r"take 0\.\d+ GB, and 0\.00 GB are free") as caught:
        tuned(tmp_path, tiny, examples)
    assert "activations: recompute" in caught.value.remedy


def test_a_disk_that_fills_up_is_one_clear_error(tmp_path, monkeypatch):
    cache = make_cache(tmp_path)

    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(LuthierError, match="have filled the disk"):
        cache.put(0, torch.randn(3, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 3}, "`top` is 3, and the model has 2 layers"),
        ({"top": None, "names": ["layers.1.mpl"]}, "names 'layers.1.mpl', which none of"),
        ({"top": None, "names": ["layers.99"]}, "names 'layers.99', and the model has layers 0 to 1"),
        ({"top": None, "names": ["norm", "layers.2.mlp"]}, "names 'layers.2.mlp', and the model has layers 0 to 1"),
        ({"top": None, "names": ["norm"], "rank": 4}, "can have an adapter"),
    ],
)
def test_what_cannot_be_trained_is_explained(tmp_path, tiny, examples, options, message):
    with pytest.raises(InputError, match=message) as caught:
        tuned(tmp_path, tiny, examples, **options)
    assert caught.value.remedy


def test_two_ways_to_choose_are_refused_while_planning():
    from luthier.components import ConfigurationError
    from luthier.core_stages import STAGES
    from luthier.registering import read_component

    stage = next(stage for stage in STAGES if stage.name == "tune")
    component = read_component(luthier_tune.layers, stage, distribution="luthier-tune", version="0", plugin="tune")
    with pytest.raises(ConfigurationError, match="`top` and `names` both"):
        component.canonical({"top": 2, "names": ["norm"]})
    with pytest.raises(ConfigurationError, match="more than one training budget"):
        component.canonical({"max_steps": 2, "max_epochs": 1.0})
