"""Extended vocabularies: what was encoded stays readable, old tokens behave as before, new ones save tokens."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from luthier import Dataset, InputError, Model
from luthier.testing import make_context
from luthier_models import Vocabulary, extend_vocabulary, fresh, rnn_lm
from luthier_models.extension.merges import learn_merges
from luthier_models.extension.tokenizer import new_merges, with_merges
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder, load_tokenizer
from luthier_models.testing import tiny_tokenizer, write_tiny_model

DOMAIN = [
    "The angiotensin-converting enzyme inhibitors reduce the myocardial preload.\n",
    "Myocardial infarction: angiotensin receptor blockers, enzyme inhibitors; preload 12 mmHg.",
] * 8


def dataset(directory: Path, form: str = "language-modelling", **columns) -> Dataset:
    numbers = [str(number) for number in range(len(DOMAIN))]
    splits = ["train"] * (len(DOMAIN) - 4) + ["valid"] * 4
    rows = {"id": numbers, "group": numbers, "split": splits, **(columns or {"text": DOMAIN})}
    directory.mkdir(parents=True)
    pl.DataFrame(rows).write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, form)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("domain") / "data")


@pytest.fixture(scope="module", params=["tied", "untied"])
def extended(request, data, tmp_path_factory):
    """The directory of a tiny model, and the context of extending it."""
    directory = tmp_path_factory.mktemp(request.param)
    write_tiny_model(directory / "old", tied=request.param == "tied")
    ctx = make_context(directory / "new", seed=1)
    extend_vocabulary(Model.at(directory / "old", "causal-lm"), data, ctx, tokens=60, min_frequency=8, valid_examples=2)
    return directory / "old", ctx


def test_the_most_frequent_pairs_are_joined_first():
    words = {("a", "b", "c"): 5, ("a", "b"): 3, ("x", "y"): 4, ("q", "r"): 1}
    merges = learn_merges(words, limit=9, min_frequency=2, known={"xy"}, apart=set())
    assert [(each.token, each.frequency, each.pieces) for each in merges] == [
        ("ab", 8, ("a", "b")),
        ("abc", 5, ("a", "b", "c")),
    ]
    assert learn_merges(words, limit=1, min_frequency=2, known=set(), apart={"b"}) == learn_merges(
        {("x", "y"): 4}, limit=1, min_frequency=2, known=set(), apart=set()
    )


@given(st.lists(st.text("abc", min_size=2, max_size=12), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_incremental_counts_are_those_of_counting_again(texts):
    words = Counter(tuple(text) for text in texts)
    merges = learn_merges(words, limit=20, min_frequency=2, known=set(), apart=set())
    current = {word: list(word) for word in words}
    for merge in merges:
        counts = Counter()
        for word, parts in current.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        assert counts[merge.left, merge.right] == merge.frequency
        # Of pairs whose token exists already nothing more is made.
        made = {each.token for each in merges[: merges.index(merge)]}
        assert merge.frequency == max(count for pair, count in counts.items() if "".join(pair) not in made)
        for word, parts in current.items():
            joined: list[str] = []
            for part in parts:
                whole = bool(joined) and (joined[-1], part) == (merge.left, merge.right)
                joined[-1:] = [joined[-1] + part] if whole else [*joined[-1:], part]
            current[word] = joined


def test_texts_of_the_domain_get_shorter(extended):
    _, ctx = extended
    metrics = {name: metric.value for name, metric in ctx.metrics.items()}
    assert metrics["tokens_per_byte"] < 0.8 * metrics["tokens_per_byte_before"]
    assert 0 < metrics["new_tokens"] <= 60
    assert metrics["bits_per_byte"] > 0
    assert metrics["bits_per_byte_before"] > 0
    tokens = pl.read_parquet(ctx.notes / "tables" / "new-tokens.parquet")
    assert len(tokens) == metrics["new_tokens"]
    assert any("angiotensin" in token for token in tokens["token"])
    assert tokens["pieces"].min() >= 2


def test_old_tokens_behave_exactly_as_before(extended):
    old, ctx = extended
    before, after = load_causal_lm(old), load_causal_lm(ctx.output)
    ids = torch.randint(0, before.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = before(ids).logits, after(ids).logits
    assert got.shape[-1] == before.config.vocab_size + ctx.metrics["new_tokens"].value
    assert got[..., : expected.shape[-1]].equal(expected)
    # The logit of a new token is the mean of those of its pieces.
    tokenizer, extended_tokenizer = load_tokenizer(old), load_tokenizer(ctx.output)
    for number in range(expected.shape[-1], got.shape[-1]):
        text = extended_tokenizer.decode([number], clean_up_tokenization_spaces=False)
        pieces = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert torch.allclose(got[..., number], expected[..., pieces].mean(-1), atol=1e-4)


def test_what_was_encoded_is_still_read(extended):
    old, ctx = extended
    before, after = load_tokenizer(old), load_tokenizer(ctx.output)
    assert after.get_vocab().items() >= before.get_vocab().items()
    for text in DOMAIN:
        assert after.decode(before(text)["input_ids"]) == before.decode(before(text)["input_ids"])
    template = [{"role": "user", "content": "Which enzyme?"}]
    assert after.apply_chat_template(template, tokenize=False) == before.apply_chat_template(template, tokenize=False)
    assert PromptEncoder.from_directory(ctx.output).end_tokens == PromptEncoder.from_directory(old).end_tokens


@pytest.fixture(scope="module")
def tokenizers():
    old = tiny_tokenizer().backend_tokenizer
    return old, Tokenizer.from_str(with_merges(old, new_merges(old, DOMAIN, limit=60, min_frequency=4)))


@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from(" ".join(DOMAIN[:2]).split()), max_size=9).map(" ".join))
)
@settings(max_examples=150, deadline=None)
def test_every_text_is_encoded_by_joining_its_old_pieces(tokenizers, text):
    old, new = tokenizers
    before, after = old.encode(text, add_special_tokens=False), new.encode(text, add_special_tokens=False)
    assert new.decode(after.ids, skip_special_tokens=False) == old.decode(before.ids, skip_special_tokens=False)
    assert "".join(after.tokens) == "".join(before.tokens)
    # Every border between new tokens was one between old ones.
    ends = [{end for _, end in each.offsets} for each in (before, after)]
    assert ends[1] <= ends[0]


def test_tokens_that_only_the_list_of_added_ones_names_keep_their_ids():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer.model = models.BPE(vocab=alphabet, merges=[])
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    assert tokenizer.token_to_id("<|end|>") == 256
    extended = Tokenizer.from_str(with_merges(tokenizer, new_merges(tokenizer, DOMAIN, limit=5, min_frequency=4)))
    assert extended.token_to_id("<|end|>") == 256
    assert extended.encode("the <|end|>").ids.count(256) == 1
    assert extended.decode(extended.encode("the enzyme").ids) == "the enzyme"
    assert extended.get_vocab_size() == 262


def test_blanks_begin_words_where_the_tokenizer_does_not_cut_texts():
    letters = [*"<unk> ▁", *map(chr, range(97, 123)), *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(["<unk>", "▁", *letters]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    texts = ["the enzyme of the enzyme: ÆÆÆÆ"] * 9
    merges = new_merges(tokenizer, texts, limit=40, min_frequency=4)
    assert "▁enzyme" in {merge.token for merge in merges}
    assert not any("▁" in merge.token[1:] or "<" in merge.token for merge in merges)
    extended = Tokenizer.from_str(with_merges(tokenizer, merges))
    assert extended.decode(extended.encode(texts[0]).ids) == texts[0]
    assert len(extended.encode(texts[0]).ids) < len(tokenizer.encode(texts[0]).ids) / 2


def test_rows_that_a_model_has_to_spare_are_used(tmp_path, data):
    directory = write_tiny_model(tmp_path / "old")
    model = load_causal_lm(directory)
    model.resize_token_embeddings(model.config.vocab_size + 100, mean_resizing=False)
    model.save_pretrained(directory)
    ctx = make_context(tmp_path / "new")
    extend_vocabulary(Model.at(directory, "causal-lm"), data, ctx, tokens=20, min_frequency=4, valid_examples=0)
    assert load_causal_lm(ctx.output).config.vocab_size == model.config.vocab_size
    assert "bits_per_byte" not in ctx.metrics


def test_a_recurrent_model_is_extended_too(tmp_path, data):
    made = make_context(tmp_path / "made")
    rnn_lm(data, made, parameters="60K", tokenizer=Vocabulary(size=280))
    ctx = make_context(tmp_path / "new")
    extend_vocabulary(Model.at(made.output, "causal-lm"), data, ctx, tokens=9, min_frequency=4)
    assert load_causal_lm(ctx.output).config.vocab_size == 289
    assert ctx.metrics["bits_per_byte"].value > 0


def test_conversations_and_prompts_are_read(tmp_path, tiny):
    turns = [[{"role": "user", "content": "Which?"}, {"role": "assistant", "content": text}] for text in DOMAIN]
    for name, form, columns in (
        ("chat", "chat", {"messages": turns}),
        ("pairs", "prompt-completion", {"prompt": DOMAIN, "completion": DOMAIN}),
    ):
        ctx = make_context(tmp_path / name)
        settings = {"tokens": 20, "min_frequency": 8, "valid_examples": 0}
        extend_vocabulary(
            Model.at(tiny, "causal-lm"), dataset(tmp_path / f"{name}-data", form, **columns), ctx, **settings
        )
        assert ctx.metrics["new_tokens"].value == 20


def test_what_cannot_be_extended_is_refused(tmp_path, data, tiny):
    made = make_context(tmp_path / "made")
    fresh(data, made, parameters="60K", tokenizer=Vocabulary(kind="word", size=80))
    with pytest.raises(InputError, match="vocabulary of the kind WordLevel cannot be extended"):
        extend_vocabulary(Model.at(made.output, "causal-lm"), data, make_context(tmp_path / "a"))
    with pytest.raises(InputError, match="no pair of tokens that occurs 5000 times"):
        extend_vocabulary(Model.at(tiny, "causal-lm"), data, make_context(tmp_path / "b"), min_frequency=5000)


def test_the_same_data_gives_the_same_bytes(tmp_path, data, extended):
    old, first = extended
    ctx = make_context(tmp_path, seed=1)
    again = shutil.copytree(old, tmp_path / "old")
    extend_vocabulary(Model.at(again, "causal-lm"), data, ctx, tokens=60, min_frequency=8, valid_examples=0)
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        assert (ctx.output / name).read_bytes() == (first.output / name).read_bytes()
