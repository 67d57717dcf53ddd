"""Fresh models: the arithmetic, the tokenizers, and what every later stage needs of them."""

from __future__ import annotations

import json
from typing import get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig

from luthier import Dataset, InputError
from luthier.components import ConfigurationError, read_component
from luthier.core_stages import STAGES
from luthier.testing import arguments, make_context
from luthier_models import Vocabulary, fresh, rnn_seq2seq
from luthier_models.families.design import TRAITS, Design
from luthier_models.families.llama import DecoderShape, Llama
from luthier_models.families.sizes import parameters, parse_count
from luthier_models.families.table import FAMILIES
from luthier_models.loading import load_language_model
from luthier_models.vocabularies import SPECIAL, train_tokenizer

TEXTS = [
    "The  river is long,\nand the bridge over it is old.",
    "A bridge of 1907; it was mended three times.\tNobody knows why.",
    "El puente está cerrado. Der Fluß fließt.",
] * 4


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


@pytest.mark.parametrize(
    ("family", "wished"),
    [
        *[(family, {"tied": tied}) for family in ("llama", "qwen3") for tied in (True, False)],
        *[(family, wished) for family in ("t5", "marian") for wished in ({}, {"layers": 2, "decoder_layers": 3})],
    ],
)
def test_the_arithmetic_is_that_of_the_model(tmp_path, data, family, wished):
    ctx = make_context(tmp_path, seed=1)
    fresh(data, ctx, family=family, parameters="300K", tokenizer=Vocabulary(size=300), **wished)
    model = load_language_model(ctx.output)
    # Marian's sinusoids are no parameters but in name: nothing learns them, and they are not stored.
    count = sum(p.numel() for name, p in model.named_parameters() if "embed_positions" not in name)
    assert ctx.metrics["parameters"].value == count
    assert count <= 300_000
    assert "layers" in wished or count > 200_000
    table = pl.read_parquet(ctx.notes / "tables" / "parameters.parquet")
    assert table["parameters"].sum() == count
    assert model.config.model_type == family


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
    model = load_language_model(ctx.output)
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
@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"family": "t5", "rope_base": 500.0, "max_length": 99}, "the family t5 has no max_length, rope_base"),
        ({"family": "llama", "decoder_layers": 2}, "the family llama has no decoder_layers"),
        ({"family": "marian", "tied": False}, "the family marian has no tied"),
    ],
)
def test_what_a_family_does_not_have_is_refused_while_planning(config, says):
    with pytest.raises(ConfigurationError, match=says):
        arguments(fresh, **config)


def test_planning_knows_every_family_and_its_form():
    component = read_component(
        fresh, next(stage for stage in STAGES if stage.name == "architecture"), distribution="", version="", plugin=""
    )
    assert TRAITS.keys() == FAMILIES.keys() == set(get_args(component.model.model_fields["family"].annotation))
    forms = {name: component.form({"family": name}) for name in TRAITS}
    assert forms == {"llama": "causal-lm", "qwen3": "causal-lm", "t5": "seq2seq-lm", "marian": "seq2seq-lm"}


def test_data_without_training_texts_is_refused(tmp_path, data):
    rows = data.frame().with_columns(split=pl.lit("test"))
    rows.write_parquet(tmp_path / "shard-00000.parquet")
    with pytest.raises(InputError, match="no text to train a tokenizer on"):
        fresh(Dataset.at(tmp_path, "language-modelling"), make_context(tmp_path / "made"))


@pytest.mark.parametrize(("text", "count"), [("5M", 5_000_000), ("1.7b", 1_700_000_000), ("800000", 800_000)])
def test_counts_are_read(text, count):
    assert parse_count(text) == count
