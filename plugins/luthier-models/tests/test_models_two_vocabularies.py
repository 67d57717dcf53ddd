"""Encoder-decoders with Marian's own tokenizers: one SentencePiece model reads, another writes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel, MarianTokenizer

import luthier_models
from luthier import InputError
from luthier.artifacts import build_manifest
from luthier.testing import make_context
from luthier_models.prompts import PromptEncoder
from luthier_models.runtime import TransformersGenerator

PROMPTS = [
    "The river is long and the bridge over it is old.",
    "A bridge of wood; it was mended three times.",
    "Nobody knows why the old bridge is closed.",
]
COMPLETIONS = [
    "La rivière est longue et le pont qui la traverse est vieux.",
    "Un pont en bois ; il a été réparé trois fois.",
    "Personne ne sait pourquoi le vieux pont est fermé.",
]
TOKENIZER = {"source.spm", "target.spm", "tokenizer_config.json", "vocab.json"}
SPECIAL = ["</s>", "<unk>", "<pad>"]
SIZES = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}


def train(texts: list[str], path: Path, **options: int) -> list[str]:
    """Train a SentencePiece model as Marian's are; gives its pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4), model_writer=model, vocab_size=100, hard_vocab_limit=False, **options
    )
    path.write_bytes(model.getvalue())
    read = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [read.id_to_piece(number) for number in range(read.get_piece_size())]


def write_marian(directory: Path, *, separate: bool) -> Path:
    """A tiny Marian model as the hub has them: with one table of ids for both sides, or with two."""
    directory.mkdir()
    options = {"bos_id": -1, "eos_id": 0, "unk_id": 1, "minloglevel": 2}
    reads, writes = (
        train(texts, directory / name, **options)
        for texts, name in ((PROMPTS, "source.spm"), (COMPLETIONS, "target.spm"))
    )
    if separate:
        tables = {"vocab.json": [*SPECIAL, *reads], "target_vocab.json": [*SPECIAL, *writes]}
    else:
        tables = {"vocab.json": [*SPECIAL, *reads, *writes]}
    tables = {name: list(dict.fromkeys(tokens)) for name, tokens in tables.items()}
    for name, tokens in tables.items():
        (directory / name).write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "en", "target_lang": "fr", "separate_vocabs": separate})
    )
    config = MarianConfig(
        vocab_size=len(tables["vocab.json"]),
        decoder_vocab_size=len(tables["target_vocab.json" if separate else "vocab.json"]),
        share_encoder_decoder_embeddings=not separate,
        **SIZES,
        **HEADS,
        init_std=0.5,
        pad_token_id=2,
        eos_token_id=0,
        forced_eos_token_id=None,
        decoder_start_token_id=2,
    )
    torch.manual_seed(0)
    MarianMTModel(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module", params=[False, True], ids=["one table of ids", "two"])
def marian(request, tmp_path_factory) -> Path:
    return write_marian(tmp_path_factory.mktemp("marian") / "model", separate=request.param)


def test_prompts_are_read_by_one_and_completions_written_by_the_other(tmp_path, marian):
    hashes = set()
    for name in "ab":
        ctx = make_context(tmp_path / name)
        luthier_models.pretrained(ctx, model=str(marian), form="seq2seq-lm")
        hashes.add(build_manifest(ctx.output, "model", "seq2seq-lm").hash)
    assert len(hashes) == 1
    assert {path.name for path in ctx.output.iterdir()} >= TOKENIZER
    theirs = MarianTokenizer.from_pretrained(marian)
    encoder = PromptEncoder.from_directory(ctx.output)
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        expected = theirs(prompt, text_target=completion)
        assert encoder.pair(prompt, completion) == (expected["input_ids"], expected["labels"])
        assert encoder.pair(prompt, completion)[1] != encoder.prompt(completion)
        assert encoder.decode(encoder.completion(completion)) == completion

    generator, model = TransformersGenerator(ctx.output), MarianMTModel.from_pretrained(marian)
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, generator.score(PROMPTS, COMPLETIONS), strict=True):
        batch = theirs(prompt, text_target=completion, return_tensors="pt")
        with torch.no_grad():
            loss = model(**batch).loss.item()
        logs = score.log_probabilities
        assert -sum(logs) / len(logs) == pytest.approx(loss, rel=1e-4)
    written = model.generate(**theirs(PROMPTS, return_tensors="pt", padding=True), num_beams=1, max_new_tokens=12)
    told = theirs.batch_decode(written, skip_special_tokens=True)
    assert [text.strip() for text in generator.generate(PROMPTS, max_new_tokens=12)] == told
    assert any(told)


def more_tokens(directory: Path) -> None:
    path = directory / ("target_vocab.json" if (directory / "target_vocab.json").exists() else "vocab.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"zz": 10_000}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda directory: (directory / "target.spm").unlink(), "lacks target.spm of its tokenizer"),
        (lambda directory: (directory / "vocab.json").unlink(), "has no tokenizer|lacks vocab.json of its tokenizer"),
        (lambda directory: (directory / "source.spm").write_bytes(b"junk"), "tokenizer cannot be read"),
        (more_tokens, "token 'zz' has the number 10000, and the embedding has"),
    ],
)
def test_a_tokenizer_that_lacks_a_side_is_explained(tmp_path, marian, spoil, message):
    shutil.copytree(marian, tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        luthier_models.pretrained(make_context(tmp_path / "run"), model=str(tmp_path / "model"), form="seq2seq-lm")
    assert caught.value.remedy


def test_which_of_several_languages_is_written_has_to_be_known(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    pieces = train(PROMPTS, directory / "sentencepiece.bpe.model", minloglevel=2)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces[3:]]
    (directory / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    settings = {"src_lang": "en", "tgt_lang": "fr"}
    (directory / "tokenizer_config.json").write_text("{}")
    config = M2M100Config(vocab_size=len(tokens) + 110, **SIZES, **HEADS)
    M2M100ForConditionalGeneration(config).save_pretrained(directory)
    with pytest.raises(InputError, match="cannot encode what the model is to write") as caught:
        luthier_models.pretrained(make_context(tmp_path / "a"), model=str(directory), form="seq2seq-lm")
    assert "tgt_lang" in caught.value.remedy
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    ctx = make_context(tmp_path / "b")
    luthier_models.pretrained(ctx, model=str(directory), form="seq2seq-lm")
    encoder = PromptEncoder.from_directory(ctx.output)
    given, targets = encoder.pair(PROMPTS[0], PROMPTS[0])
    assert encoder.tokenizer.convert_ids_to_tokens([given[0], targets[0]]) == ["__en__", "__fr__"]
