"""Pruned vocabularies: every text can still be written, what stays means what it did, all numbers are right."""

from __future__ import annotations

import json
import math
import random

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from luthier import InputError, Model
from luthier.testing import make_context
from luthier_models import Vocabulary, rnn_lm
from luthier_models.loading import load_causal_lm
from luthier_models.prompts import PromptEncoder, load_tokenizer
from luthier_models.runtime import TransformersGenerator
from luthier_models.testing import tiny_tokenizer
from luthier_models.vocabularies import train_tokenizer
from luthier_prune import vocabulary
from luthier_prune.options import Pruning
from luthier_prune.tokens.ranking import count_tokens, ids_of, rank
from luthier_prune.tokens.tokenizer import without_others, write_tokenizer

from .conftest import write_family

TEXTS = [
    "Return the number of rows of the table, or None if the table has not been read yet.",
    "Summarize in one line: the quick brown fox jumps over the lazy dog.",
    "Öffne die Datei: 開く, naïve “quotes” and 12 numbers.",
]


def prune(model, data, directory, *, min_frequency=None, **pruning):
    ctx = make_context(directory, seed=1)
    vocabulary(model, data, ctx, min_frequency=min_frequency, pruning=Pruning(**pruning))
    return ctx


@pytest.fixture(scope="module")
def pruned(llama, examples, tmp_path_factory):
    return prune(llama, examples, tmp_path_factory.mktemp("pruned"))


def sentencepiece() -> Tokenizer:
    """Byte-pair encoding as sentencepiece has it: characters, merges, bytes for what is unknown."""
    letters = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(97, 123)), "é"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("r", "o"), ("ro", "w"), ("▁", "ro"), ("▁ro", "w"), ("a", "b")]
    ids = {token: number for number, token in enumerate([*letters, *map("".join, merges)])}
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def unigram() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, Vocabulary(kind="unigram", size=120)).backend_tokenizer


KINDS = {"byte-level": lambda: tiny_tokenizer().backend_tokenizer, "sentencepiece": sentencepiece, "unigram": unigram}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    """A tokenizer, its record, its ranking by the first of the texts, and what was cut of it already."""
    tokenizer = KINDS[request.param]()
    record = json.loads(tokenizer.to_str())
    ids = tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
    return tokenizer, record, rank(record, count_tokens([(ids, [])]), set()), {}


def cut(kind, removed):
    _, record, ranking, done = kind
    if removed not in done:
        kept = sorted(ranking.order[: max(ranking.fixed, len(ranking.order) - removed)])
        done[removed] = kept, Tokenizer.from_str(json.dumps(without_others(record, kept)))
    return done[removed]


SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0])


text = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(" ".join(TEXTS).split()), max_size=9).map(" ".join),
)


@given(text=text, share=SHARES)
@settings(max_examples=100, deadline=None)
def test_every_text_is_read_back_as_it_was_before(kind, text, share):
    old = kind[0]
    _, new = cut(kind, round(share * len(kind[2].order)))
    ids = (each.encode(text, add_special_tokens=False).ids for each in (old, new))
    before, after = (each.decode(i, skip_special_tokens=False) for each, i in zip((old, new), ids, strict=True))
    assert after == before


@given(text=text, share=SHARES)
@settings(max_examples=100, deadline=None)
def test_a_text_whose_tokens_all_stay_is_cut_as_before(kind, text, share):
    old = kind[0]
    kept, new = cut(kind, round(share * len(kind[2].order)))
    before = old.encode(text, add_special_tokens=False)
    after = new.encode(text, add_special_tokens=False)
    if set(before.ids) <= set(kept):
        assert after.tokens == before.tokens
        assert after.ids == [kept.index(number) for number in before.ids]


def test_what_the_corpus_uses_outlives_what_it_does_not(kind):
    tokenizer, _, ranking, _ = kind
    used = set(tokenizer.encode(TEXTS[0], add_special_tokens=False).ids)
    rare = [number for number in ranking.order[ranking.fixed :] if ranking.uses[number] == 0]
    assert used.isdisjoint(rare)
    kept, new = cut(kind, len(rare))
    assert used <= set(kept)
    assert new.encode(TEXTS[0]).tokens == tokenizer.encode(TEXTS[0]).tokens
    assert len(kept) < len(ranking.order)


def test_what_is_put_around_texts_is_renumbered():
    record = json.loads(sentencepiece().to_str())
    record["post_processor"] = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}
    kept = [number for number in ids_of(record).values() if number != 0]
    record["model"]["unk_token"] = None
    record["added_tokens"] = record["added_tokens"][1:]
    new = Tokenizer.from_str(json.dumps(without_others(record, kept)))
    assert new.encode("the row").ids[0] == new.token_to_id("<s>") == 0
    assert new.encode("the row").ids[-1] == new.token_to_id("</s>") == 1


def test_files_with_old_numbers_are_put_right(tmp_path):
    tokenizer = sentencepiece()
    tokenizer.add_special_tokens(["<|end|>"])
    last = tokenizer.token_to_id("<|end|>")
    record = json.loads(tokenizer.to_str())
    ranking = rank(record, {}, set())
    settings = {"added_tokens_decoder": {"1": {"content": "<s>"}, str(last): {"content": "<|end|>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "vocab.json").write_text(json.dumps({"<|end|>": last}))
    write_tokenizer(tmp_path, without_others(record, sorted(ranking.order[: ranking.fixed])))
    new = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).token_to_id("<|end|>")
    assert new == ranking.fixed - 1 < last
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written["added_tokens_decoder"] == {"1": {"content": "<s>"}, str(new): {"content": "<|end|>"}}
    assert not (tmp_path / "vocab.json").exists()


def test_all_bytes_and_special_tokens_stay_without_any_use():
    record = json.loads(sentencepiece().to_str())
    ranking = rank(record, {}, set())
    assert ranking.fixed == 256 + 3 + 1
    kept = sorted(ranking.order[: ranking.fixed])
    new = Tokenizer.from_str(json.dumps(without_others(record, kept)))
    assert new.get_vocab_size() == 260
    assert new.decode(new.encode("the été 開く").ids) == "the été 開く"


def test_the_logits_of_what_stays_are_what_they_were(llama, pruned):
    before, after = load_causal_lm(llama.path), load_causal_lm(pruned.output)
    old, new = load_tokenizer(llama.path), load_tokenizer(pruned.output)
    names = new.convert_ids_to_tokens(list(range(len(new))))
    kept = torch.tensor(old.convert_tokens_to_ids(names))
    assert after.config.vocab_size == len(new) == len(kept) < len(old)
    ids = new("Summarize in one line: table row", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = before(kept[ids]).logits[..., kept]
        assert torch.allclose(after(ids).logits, expected, atol=1e-5)


def test_the_divergence_is_that_of_the_renormalised_distribution(llama, examples, pruned):
    ref, cand = TransformersGenerator(llama.path), TransformersGenerator(pruned.output)
    old, new = load_tokenizer(llama.path), load_tokenizer(pruned.output)
    kept = old.convert_tokens_to_ids(new.convert_ids_to_tokens(list(range(len(new)))))
    rows = examples.frame("valid")
    total = tokens = 0
    pairs = [list(g.logits(rows["prompt"].to_list(), rows["completion"].to_list())) for g in (ref, cand)]
    for theirs, ours in zip(*pairs, strict=True):
        p, q = (torch.tensor(each).double().log_softmax(1) for each in (theirs, ours))
        # The texts' tokens all stayed, so that both have the same contexts.
        assert len(p) == len(q)
        total += float((q.exp() * (q - p[:, kept])).sum())
        tokens += len(p)
    assert pruned.metrics["mean_kl"].value == pytest.approx(total / tokens, rel=1e-3)
    sizes = pl.read_parquet(pruned.notes / "tables" / "quality-by-size.parquet")
    assert sizes["mean_kl"][-1] == pytest.approx(total / tokens, rel=1e-3)
    assert sizes["mean_kl"].is_sorted()


def test_settings_name_the_same_tokens_by_their_new_numbers(llama, examples, tmp_path):
    model = load_causal_lm(llama.path)
    tokenizer = load_tokenizer(llama.path)
    # The special tokens of a real vocabulary often come last.
    last = len(tokenizer) - 1
    moved = {"eos_token_id": [2, last]}
    model.generation_config.update(**moved, suppress_tokens=[last - 1, 5])
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    ctx = prune(Model.at(tmp_path / "model", "causal-lm"), examples, tmp_path / "new", ratio=0.2)
    new = load_tokenizer(ctx.output)
    assert len(new) < len(tokenizer)
    written = json.loads((ctx.output / "generation_config.json").read_text())
    assert new.convert_ids_to_tokens(written["eos_token_id"]) == tokenizer.convert_ids_to_tokens(moved["eos_token_id"])
    config = json.loads((ctx.output / "config.json").read_text())
    for name in ("bos", "eos", "pad"):
        token = getattr(tokenizer, f"{name}_token")
        assert getattr(new, f"{name}_token") == token
        assert config[f"{name}_token_id"] == new.convert_tokens_to_ids(token)
    old, encoder = (PromptEncoder.from_directory(path) for path in (tmp_path / "model", ctx.output))
    assert new.convert_ids_to_tokens(sorted(encoder.end_tokens)) == tokenizer.convert_ids_to_tokens(
        sorted(old.end_tokens)
    )
    assert new.decode(encoder.prompt("Which table?")) == tokenizer.decode(old.prompt("Which table?"))


def test_the_same_texts_are_about_as_likely_and_metrics_add_up(llama, pruned):
    metrics = {name: metric.value for name, metric in pruned.metrics.items()}
    removed = metrics["vocabulary_before"] - metrics["vocabulary"]
    assert metrics["removed_tokens"] == removed > 0
    assert metrics["parameters_before"] - metrics["parameters"] == 64 * removed
    assert metrics["parameters"] == sum(each.numel() for each in load_causal_lm(pruned.output).parameters())
    # Held-out texts use no other tokens: they lose none, and gain what the others had.
    assert metrics["tokens_per_byte"] == metrics["tokens_per_byte_before"]
    assert metrics["bits_per_byte"] < metrics["bits_per_byte_before"]
    gone = pl.read_parquet(pruned.notes / "tables" / "removed-tokens.parquet")
    assert len(gone) == removed
    assert gone["uses"].max() == 0


@pytest.mark.parametrize("form", ["language-modelling", "chat"])
def test_other_forms_are_read(llama, make_dataset, rows, tmp_path, form):
    ctx = prune(llama, make_dataset(rows(), form), tmp_path / "new")
    assert math.isfinite(ctx.metrics["bits_per_byte"].value)
    assert ctx.metrics["removed_tokens"].value > 20


def test_targets(llama, examples, tmp_path, pruned):
    by_ratio = prune(llama, examples, tmp_path / "ratio", ratio=0.1)
    assert by_ratio.metrics["removed_tokens"].value == round(0.1 * by_ratio.metrics["vocabulary_before"].value)
    most = int(pruned.metrics["parameters"].value) + 64
    by_size = prune(llama, examples, tmp_path / "size", parameters=str(most))
    assert by_size.metrics["parameters"].value == most
    budget = pruned.metrics["mean_kl"].value / 2
    by_quality = prune(llama, examples, tmp_path / "quality", max_kl=budget)
    assert 0 < by_quality.metrics["mean_kl"].value <= budget
    often = prune(llama, examples, tmp_path / "often", min_frequency=30)
    assert often.metrics["removed_tokens"].value > pruned.metrics["removed_tokens"].value
    assert often.metrics["tokens_per_byte"].value > often.metrics["tokens_per_byte_before"].value


def test_the_end_of_the_scale_is_refused(llama, examples, tmp_path):
    with pytest.raises(InputError, match=r"a ratio of 0\.9 leaves nothing: \d+ of \d+ tokens can be removed"):
        prune(llama, examples, tmp_path, ratio=0.9)


def test_spare_rows_of_the_embedding_go(llama, examples, tmp_path):
    model = load_causal_lm(llama.path)
    tokens = model.config.vocab_size
    model.resize_token_embeddings(tokens + 26, mean_resizing=False)
    model.save_pretrained(tmp_path / "model")
    load_tokenizer(llama.path).save_pretrained(tmp_path / "model")
    ctx = prune(Model.at(tmp_path / "model", "causal-lm"), examples, tmp_path / "new", ratio=0.1)
    after = load_causal_lm(ctx.output)
    assert after.config.vocab_size == ctx.metrics["vocabulary"].value == tokens - ctx.metrics["removed_tokens"].value
    assert ctx.metrics["parameters"].value == sum(each.numel() for each in after.parameters())


@pytest.mark.parametrize("name", ["gpt2", "opt", "stablelm"])
def test_embeddings_of_every_form_are_narrowed(name, examples, tmp_path):
    ctx = prune(Model.at(write_family(tmp_path / "m", name, layers=1), "causal-lm"), examples, tmp_path / "new")
    after = load_causal_lm(ctx.output)
    assert ctx.metrics["parameters"].value == sum(each.numel() for each in after.parameters())
    assert ctx.metrics["bits_per_byte"].value < ctx.metrics["bits_per_byte_before"].value


def test_a_recurrent_model_s_vocabulary_is_pruned(make_dataset, rows, tmp_path):
    data = make_dataset(rows(), "language-modelling")
    made = make_context(tmp_path / "made")
    rnn_lm(data, made, parameters="60K", tokenizer=Vocabulary(kind="unigram", size=120))
    ctx = prune(Model.at(made.output, "causal-lm"), data, tmp_path / "new", ratio=0.1)
    assert load_causal_lm(ctx.output).config.vocab_size == ctx.metrics["vocabulary"].value
    assert ctx.metrics["tokens_per_byte"].value >= ctx.metrics["tokens_per_byte_before"].value


def test_words_cannot_be_dropped(make_dataset, rows, tmp_path):
    data = make_dataset(rows(), "language-modelling")
    made = make_context(tmp_path / "made")
    rnn_lm(data, made, parameters="60K", tokenizer=Vocabulary(kind="word", size=80))
    with pytest.raises(InputError, match="vocabulary of the kind WordLevel cannot be dropped"):
        prune(Model.at(made.output, "causal-lm"), data, tmp_path / "new")


def test_texts_of_many_lengths_are_cut_alike_by_genai(llama, pruned, tmp_path):
    """onnxruntime-genai reads the pruned tokenizer as transformers does, and runs the model that goes with it."""
    genai = pytest.importorskip("onnxruntime_genai")
    from luthier_onnx import genai as export
    from luthier_onnx.runtime import GenaiGenerator

    ctx = make_context(tmp_path)
    export(Model.at(pruned.output, "causal-lm"), ctx)
    theirs = genai.Tokenizer(genai.Model(str(ctx.output)))
    ours = load_tokenizer(pruned.output)
    chosen = random.Random(1)
    alphabet = "".join(TEXTS) + "\n\t<|im_end|>'s 0"
    texts = [
        *TEXTS,
        "<|im_start|>user\nWhich?<|im_end|>\n",
        *("".join(chosen.choices(alphabet, k=k)) for k in range(1, 80)),
    ]
    for text in texts:
        expected = ours(text, add_special_tokens=False)["input_ids"]
        assert list(theirs.encode(text)) == expected, text
        assert theirs.decode(expected) == ours.decode(expected, skip_special_tokens=True), text
    prompts = ["Which table?", "Öffne: 開く"]
    expected = TransformersGenerator(pruned.output).generate(prompts, max_new_tokens=8)
    assert GenaiGenerator(ctx.output).generate(prompts, max_new_tokens=8) == expected
