"""Fresh models: the arithmetic, the tokenizers, and what every later stage needs of them."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig

from luthier import Dataset, InputError, LuthierError
from luthier.components import ConfigurationError
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier.testing import arguments, make_context
from luthier_models import Vocabulary, fresh, rnn_seq2seq
from luthier_models.anatomy.parts import block_of
from luthier_models.families.design import TRAITS, Design, choose_family
from luthier_models.families.llama import DecoderShape, Llama
from luthier_models.families.sizes import parameters, parse_count
from luthier_models.families.table import FAMILIES
from luthier_models.loading import AUTO_CLASSES, load_by_config
from luthier_models.memory import available_bytes
from luthier_models.options import check_fresh, least_size
from luthier_models.packing import PackedModel, pack
from luthier_models.testing import tiny_tokenizer
from luthier_models.vocabularies import SPECIAL, train_tokenizer

TEXTS = [
    "The  river is long,\nand the bridge over it is old.",
    "A bridge of 1907; it was mended three times.\tNobody knows why.",
    "El puente está cerrado. Der Fluß fließt.",
] * 4


SMALL = {"tokenizer": Vocabulary(size=300)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    directory = tmp_path_factory.mktemp("data")
    rows = {
        "id": [str(number) for number in range(len(TEXTS) + 1)],
        "group": [str(number) for number in range(len(TEXTS) + 1)],
        "split": ["train"] * len(TEXTS) + ["test"],
        "text": [*TEXTS, "held out: ☃"],
    }
    pl.DataFrame(rows).write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, "language-modelling")


DECODERS = [name for name, traits in TRAITS.items() if traits.form == "causal-lm"]


@pytest.mark.parametrize(
    ("family", "wished"),
    [
        *[(family, {"tied": tied}) for family in DECODERS for tied in (True, False)],
        *[(family, {"heads": 4, "key_value_heads": 2, "width": 64}) for family in ("olmo2", "stablelm", "smollm3")],
        *[(family, wished) for family in ("t5", "marian") for wished in ({}, {"layers": 2, "decoder_layers": 3})],
    ],
)
def test_the_arithmetic_is_that_of_the_model(tmp_path, data, family, wished):
    ctx = make_context(tmp_path, seed=1)
    fresh(data, ctx, family=family, parameters="300K", max_length=1024 if family == "t5" else 100, **SMALL, **wished)
    model = load_by_config(ctx.output)
    blocks: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        # Marian's sinusoids are no parameters but in name: nothing learns them, and they are not stored.
        if family != "marian" or "embed_positions" not in name:
            blocks[block_of(name)] = blocks.get(block_of(name), 0) + parameter.numel()
    table = pl.read_parquet(ctx.notes / "tables" / "parameters.parquet")
    assert {block: count for block, count in table.rows() if count} == blocks
    count = ctx.metrics["parameters"].value
    assert count == sum(blocks.values()) <= 300_000
    assert wished.keys() & {"layers", "width"} or count > 200_000
    assert model.config.model_type == family


@pytest.mark.parametrize("family", DECODERS)
def test_each_decoder_keeps_packed_documents_apart_and_does_not_mind_padding(tmp_path, data, family):
    ctx = make_context(tmp_path, seed=1)
    fresh(data, ctx, family=family, parameters="1M", layers=2, width=32, heads=4, max_length=64, **SMALL)
    model = load_by_config(ctx.output)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # large enough that tokens far away matter
    packed = PackedModel(model)
    beginning = [(7 * number) % 200 + 3 for number in range(30)]
    pairs = [([*beginning, 8], [9, 10]), ([*beginning, 11, 12], [13, 14, 15]), ([20, 21], [22])]
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([[*before, *after[:-1]]])).logits[0] for before, after in pairs]
        expected = torch.cat([each[-len(after) :] for each, (_, after) in zip(alone, pairs, strict=True)])
        for shared in {False, packed.takes_segments}:
            torch.testing.assert_close(packed.logits(pack(pairs, shared=shared)), expected, rtol=1e-4, atol=1e-4)
        padded = model(
            input_ids=torch.tensor([[0, 0, 20, 21], [5, 6, 7, 8]]),
            attention_mask=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
            position_ids=torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]),
        )
        torch.testing.assert_close(padded.logits[0, -1], expected[-1], rtol=1e-4, atol=1e-4)
    # StableLM's layers do not tell attention where documents end: its rows are masked, and share nothing.
    assert packed.takes_segments == (family != "stablelm")
    assert packed.isolates_documents


@pytest.mark.parametrize("family", DECODERS)
def test_the_norms_and_the_positions_are_where_the_table_says(tmp_path, data, family):
    ctx = make_context(tmp_path, seed=1)
    fresh(data, ctx, family=family, parameters="1M", layers=1, width=32, heads=4, max_length=64, **SMALL)
    model = load_by_config(ctx.output)
    traits = TRAITS[family]
    modules = dict(model.base_model.named_modules())
    of_layers = {name: each for name, each in modules.items() if _is_norm_of_a_layer(name)}
    assert len(of_layers) == 2
    assert {hasattr(each, "bias") for each in of_layers.values()} == {traits.norm == "layernorm"}
    called: list[str] = []
    for name, each in modules.items():
        if name in of_layers or name.endswith("attn"):
            each.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 6]]))
        learned = [each for name, each in model.named_parameters() if block_of(name) == "positions"]
        turned, plain = (
            model(input_ids=torch.tensor([[5, 6, 7]]), position_ids=torch.tensor([places])).logits[0, -1]
            for places in ([0, 1, 9], [0, 1, 2])
        )
    assert (called[0] in of_layers) == (traits.norm_position == "before")
    assert bool(learned) == (traits.positions == "learned")
    assert torch.equal(turned, plain) == (traits.positions == "none")


def _is_norm_of_a_layer(name: str) -> bool:
    numbered = any(part.isdigit() for part in name.split("."))
    return numbered and block_of(name) == "norms" and "attn." not in name


@pytest.mark.parametrize(
    ("wished", "family"),
    [
        ({}, "llama"),
        ({"positions": "none"}, "smollm3"),
        ({"norm": "rmsnorm", "norm_position": "after"}, "olmo2"),
        ({"norm_position": "after", "tied": False, "rope_base": 500.0}, "olmo2"),
        ({"norm": "layernorm"}, "stablelm"),
        ({"norm": "layernorm", "key_value_heads": 2, "norm_position": "before"}, "stablelm"),
        ({"positions": "learned"}, "gpt2"),
        ({"norm": "layernorm", "norm_position": "after"}, "opt"),
        ({"positions": "sinusoidal"}, "marian"),
        ({"decoder_layers": 2}, "t5"),
        ({"family": "qwen3", "norm": "rmsnorm"}, "qwen3"),
    ],
)
def test_the_first_family_that_has_all_wishes_is_taken(wished, family):
    values = arguments(fresh, **wished)
    assert choose_family(values["family"], Design.of(values)) == family


@pytest.mark.parametrize(
    ("cell", "wished"),
    [("gru", {}), ("lstm", {"layers": 2}), ("gru", {"layers": 2, "width": 50, "embedding_width": 40})],
)
def test_the_arithmetic_of_a_recurrent_pair_is_that_of_the_model(tmp_path, data, cell, wished):
    pairs = data.frame().with_columns(prompt="text", completion="text")
    pairs.write_parquet(tmp_path / "shard-00000.parquet")
    ctx = make_context(tmp_path / "made")
    given = {"parameters": "200K", "cell": cell, "tokenizer": Vocabulary(size=300), **wished}
    rnn_seq2seq(Dataset.at(tmp_path, "prompt-completion"), ctx, **given)
    model = load_by_config(ctx.output)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert ctx.metrics["parameters"].value == count
    assert count <= 200_000
    assert "width" in wished or count > 150_000


def test_a_pair_of_directions_has_an_even_width(tmp_path, data):
    with pytest.raises(InputError, match="the width 33 is odd"):
        rnn_seq2seq(data, make_context(tmp_path), width=33)


def test_the_seed_decides_the_weights(tmp_path, data):
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        ctx = make_context(tmp_path / name, seed=seed)
        fresh(data, ctx, parameters="100K", tokenizer=Vocabulary(kind="byte"))
        made.append({path.name: path.read_bytes() for path in ctx.output.iterdir()})
    assert made[0] == made[1]
    assert made[0]["model.safetensors"] != made[2]["model.safetensors"]


def test_what_is_wished_for_is_kept(tmp_path, data):
    ctx = make_context(tmp_path)
    wished = {"layers": 3, "width": 48, "heads": 4, "key_value_heads": 2, "mlp_width": 100, "max_length": 77}
    fresh(data, ctx, parameters="1M", tokenizer=Vocabulary(kind="character", size=60), **wished)
    config = json.loads((ctx.output / "config.json").read_text())
    names = {
        "num_hidden_layers": 3,
        "hidden_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 100,
        "max_position_embeddings": 77,
    }
    assert {name: config[name] for name in names} == names


@pytest.mark.parametrize("kind", ["byte", "character", "word", "bpe", "unigram"])
def test_each_tokenizer_gives_back_the_text_and_is_read_again(tmp_path, data, kind):
    ctx = make_context(tmp_path)
    fresh(data, ctx, parameters="200K", tokenizer=Vocabulary(kind=kind, size=400))
    tokenizer = AutoTokenizer.from_pretrained(ctx.output)
    for text in TEXTS[:3]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text
    # What only the test split has is not known.
    unknown = tokenizer.unk_token_id in tokenizer("☃")["input_ids"]
    assert unknown == (kind in ("character", "word", "unigram"))


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_bytes_encode_every_text(text):
    tokenizer = train_tokenizer(["a"], Vocabulary(kind="byte"))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokenizer) == 256 + len(SPECIAL)
    if not any(special in text for special in SPECIAL):
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


@given(st.integers(50_000, 200_000_000), st.integers(100, 50_000))
@settings(max_examples=25, deadline=None)
def test_a_budget_is_used_and_never_exceeded(budget, vocabulary):
    try:
        shape = Llama(LlamaConfig).shape(budget, vocabulary, Design())
    except InputError:
        assert budget < 32 * vocabulary + 20_000
        return
    assert parameters(shape) <= budget
    assert shape.head_width * shape.heads == shape.width
    assert shape.heads % shape.key_value_heads == 0
    if budget > 4 * 64 * vocabulary and budget > 1_000_000:
        assert parameters(shape) > 0.6 * budget


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("layers", [1, 2, 12])
@pytest.mark.parametrize("budget", [5_000_000, 100_000_000])
def test_a_budget_is_used_also_where_the_layers_are_settled(family, layers, budget):
    shape = FAMILIES[family].shape(budget, 4096, Design(layers=layers))
    assert 0.6 * budget < parameters(shape) <= budget  # Widths are multiples of 32.


def test_smollm2_has_the_parameters_that_are_known():
    known = DecoderShape(vocabulary=49152, layers=30, width=576, heads=9, key_value_heads=3, mlp_width=1536)
    assert parameters(known) == 134_515_008


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"parameters": "few"}, "'few' is no number of parameters"),
        ({"parameters": "10K"}, "10,000 parameters are too few"),
        ({"width": 50, "heads": 4}, "no shape has the width 50"),
        ({"tokenizer": Vocabulary(kind="bpe", size=100)}, "bpe tokenizer of 100 tokens is too small"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, data, config, says):
    with pytest.raises(InputError, match=says):
        fresh(data, make_context(tmp_path), **config)
    with pytest.raises(ConfigurationError, match=says):  # while planning, too
        arguments(fresh, **{name: vars(each) if name == "tokenizer" else each for name, each in config.items()})


@given(
    family=st.sampled_from([*TRAITS]),
    budget=st.integers(1_000, 3_000_000),
    kind=st.sampled_from(["byte", "character", "word", "bpe", "unigram"]),
    learnt=st.integers(0, 4000),
    design=st.one_of(
        st.fixed_dictionaries({"layers": st.integers(1, 8), "heads": st.none() | st.integers(1, 6)}),
        st.fixed_dictionaries({"width": st.integers(16, 200), "heads": st.none() | st.integers(1, 6)}),
    ),
)
@settings(max_examples=60, deadline=None)
def test_planning_refuses_no_model_that_could_be_made(family, budget, kind, learnt, design):
    vocabulary = Vocabulary(kind=kind, size=4096)
    try:
        FAMILIES[family].shape(budget, least_size(vocabulary) + learnt, Design(**design))
    except InputError:
        return
    whole = {each.name: each.default for each in fields(Design)} | design
    check_fresh(family=family, parameters=str(budget), tokenizer=vocabulary, **whole)


@pytest.mark.parametrize("family", TRAITS)
def test_planning_knows_the_class_of_every_family(family):
    shape = FAMILIES[family].shape(1_000_000, 300, Design())
    config = FAMILIES[family].configuration(shape, Design(), tiny_tokenizer(None))
    classes = AUTO_CLASSES[TRAITS[family].form]._model_mapping
    assert TRAITS[family].architecture == classes[type(config)].__name__
    assert config.model_type == family


@pytest.mark.parametrize(("family", "width"), [("llama", 128), ("gpt2", 96), ("marian", 64), ("modernbert", 128)])
def test_a_budget_is_used_also_where_the_width_is_settled(family, width):
    design = Design(width=width)
    used = parameters(FAMILIES[family].shape(1_500_000, 300, design))
    one, two = (parameters(FAMILIES[family].shape(10**9, 300, Design(width=width, layers=n))) for n in (1, 2))
    assert 1_500_000 - (two - one) < used <= 1_500_000  # One more layer does not fit.


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"family": "t5", "rope_base": 500.0, "max_length": 99}, "the family t5 has no max_length, rope_base"),
        ({"family": "llama", "decoder_layers": 2}, "the family llama has no decoder_layers"),
        ({"family": "marian", "tied": False}, "the family marian has no tied"),
        (
            {"family": "llama", "norm": "layernorm", "positions": "learned"},
            "the family llama has no norm: layernorm, positions: learned .*or take gpt2, which has it",
        ),
        (
            {"family": "gpt2", "norm": "rmsnorm"},
            r"gpt2 has no norm: rmsnorm \(It has norm: layernorm, norm_position: before, positions: learned, and .*",
        ),
        ({"positions": "none", "rope_base": 500.0}, r"no family has all .*closest: .*smollm3 \(.*\) without rope_base"),
        (
            {"norm": "rmsnorm", "norm_position": "after", "positions": "learned"},
            r"closest: olmo2 \(.*\) without positions: learned; .*opt \(.*\) without norm: rmsnorm",
        ),
    ],
)
def test_what_a_family_does_not_have_is_refused_while_planning(config, says):
    with pytest.raises(ConfigurationError, match=says):
        arguments(fresh, **config)


def test_planning_knows_every_family_and_its_form():
    component = read_component(
        fresh, next(stage for stage in STAGES if stage.name == "architecture"), distribution="", version="", plugin=""
    )
    assert (
        TRAITS.keys()
        == FAMILIES.keys()
        == set(get_args(get_args(component.model.model_fields["family"].annotation)[0]))
    )
    assert {name for name in TRAITS if component.form({"family": name}) == "seq2seq-lm"} == {"t5", "marian"}
    assert {name for name in TRAITS if component.form({"family": name}) == "encoder"} == {"modernbert"}
    assert component.form({}) == "causal-lm"
    assert component.form({"positions": "relative"}) == "seq2seq-lm"


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_made(tmp_path, data, monkeypatch, caplog):
    assert available_bytes(torch.device("cpu")) > 0
    monkeypatch.setattr("luthier_models.untrained.available_bytes", lambda _: 1_000_000)
    caplog.set_level("INFO")
    ctx = make_context(tmp_path)
    with pytest.raises(LuthierError, match=r"parameters needs 0\.00 GB of memory, and 0\.00 GB are free") as error:
        fresh(data, ctx, parameters="1M")
    assert "Lower `parameters`" in error.value.remedy
    assert "embedding" in caplog.text  # The arithmetic is told first.
    assert not list(ctx.output.iterdir())


def test_data_without_training_texts_is_refused(tmp_path, data):
    rows = data.frame().with_columns(split=pl.lit("test"))
    rows.write_parquet(tmp_path / "shard-00000.parquet")
    with pytest.raises(InputError, match="no text to train a tokenizer on"):
        fresh(Dataset.at(tmp_path, "language-modelling"), make_context(tmp_path / "made"))


@pytest.mark.parametrize(("text", "count"), [("5M", 5_000_000), ("1.7b", 1_700_000_000), ("800000", 800_000)])
def test_counts_are_read(text, count):
    assert parse_count(text) == count
