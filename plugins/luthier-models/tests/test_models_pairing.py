"""Encoder-decoders: what each side reads, that batches change nothing, and that the numbers are transformers' own."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

import luthier_models
from luthier import InputError, Model
from luthier.testing import make_context
from luthier_models.loading import load_by_config
from luthier_models.pairing import PairedModel, fill_batches, pad_pairs, start_token
from luthier_models.prompts import PromptEncoder
from luthier_models.runtime import TransformersGenerator
from luthier_models.testing import tiny_tokenizer

PROMPTS = ["Return the table.", "a", "Write the array to a file in the binary format, please, and soon", "row row"]
COMPLETIONS = ["The number of rows.", "x", "", "Return the number of rows of the table, or None"]


@pytest.fixture(scope="module")
def generator(encoder_decoder, tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("runtime"))
    return luthier_models.transformers(Model.at(encoder_decoder, "seq2seq-lm"), context, batch_size=3, batch_tokens=60)


def test_completions_are_those_of_transformers_whatever_else_is_in_the_batch(generator, encoder_decoder):
    batched = generator.generate(PROMPTS, max_new_tokens=12)
    model, encoder = load_by_config(encoder_decoder), PromptEncoder.from_directory(encoder_decoder)
    for prompt, text in zip(PROMPTS, batched, strict=True):
        ids = torch.tensor([encoder.prompt(prompt)])
        (alone,) = model.generate(ids, max_new_tokens=12, do_sample=False).tolist()
        assert text == encoder.decode(alone[1:])
    assert any(batched)


def test_scores_are_those_of_plain_forward_passes(generator):
    scores = generator.score(PROMPTS, COMPLETIONS)
    logits = list(generator.logits(PROMPTS, COMPLETIONS))
    for prompt, completion, score, found in zip(PROMPTS, COMPLETIONS, scores, logits, strict=True):
        ids, targets = generator.encoder.pair(prompt, completion)
        labels = torch.tensor([targets])
        with torch.no_grad():
            expected = generator.model(input_ids=torch.tensor([ids]), labels=labels).logits[0]
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)
        wanted = expected.log_softmax(-1).gather(1, labels[0, :, None])[:, 0].tolist()
        assert score.log_probabilities == pytest.approx(wanted, abs=1e-4)


def test_the_head_is_used_on_targets_alone_and_where_it_is_not_the_logits_the_model_is_asked(generator):
    assert generator._batched.head is generator.model.get_output_embeddings()
    bias = torch.linspace(0, 2, generator.model.config.vocab_size)
    layer = generator.model.get_output_embeddings()
    handle = layer.register_forward_hook(lambda _module, _inputs, output: output if output.ndim == 2 else output + bias)
    try:
        model = PairedModel(generator.model)
        assert model.head is None
        ((_, batch),) = model.rows([([1, 2, 3], [4, 5])], 100)
        with torch.no_grad():
            assert torch.allclose(model.logits(batch), layer(model.hidden(batch)) + bias, atol=1e-4)
    finally:
        handle.remove()


def test_stop_strings_cut_the_completion(generator):
    (whole,) = generator.generate(PROMPTS[:1], max_new_tokens=20)
    mark = whole[len(whole) // 2 :][:2]
    (cut,) = generator.generate(PROMPTS[:1], max_new_tokens=20, stop=[mark])
    assert cut == whole[: whole.index(mark)]


def test_an_encoder_reads_closed_texts_and_completions_end(encoder_decoder):
    encoder = PromptEncoder.from_directory(encoder_decoder)
    end = encoder.tokenizer.eos_token_id
    given, targets = encoder.pair("Return the table.", "The rows.")
    assert given[-1] == targets[-1] == end
    assert [*given, *targets].count(end) == 2
    assert encoder.decode(targets) == "The rows."


def test_a_target_keeps_the_token_that_its_tokenizer_puts_at_the_start():
    tokenizer = tiny_tokenizer(None)
    special = [("<|im_start|>", tokenizer.bos_token_id), ("<|im_end|>", tokenizer.eos_token_id)]
    post = processors.TemplateProcessing(single="<|im_start|> $A <|im_end|>", special_tokens=special)
    tokenizer.backend_tokenizer.post_processor = post
    _, targets = PromptEncoder(tokenizer, encoder_decoder=True).pair("a", "row")
    assert (targets[0], targets[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_texts_without_a_prompt_are_refused(generator):
    with pytest.raises(InputError, match=r"a text without a prompt, and the model is an encoder-decoder"):
        generator.score([""], ["a text"])


@pytest.mark.parametrize("encoder_decoder", ["marian"], indirect=True)
def test_each_side_has_the_context_for_itself(encoder_decoder):
    generator = TransformersGenerator(encoder_decoder)
    fits = "row " * 110
    assert 100 < len(generator.encoder.prompt(fits)) <= 128
    assert generator.generate([fits], max_new_tokens=100)
    assert len(generator.score([fits], [fits])[0].log_probabilities) > 100
    for call in (
        lambda: generator.generate(["row " * 300], max_new_tokens=4),
        lambda: generator.generate(["row"], max_new_tokens=128),
        lambda: generator.score(["row"], ["row " * 300]),
    ):
        with pytest.raises(InputError, match="does not fit into the model's context of 128"):
            call()


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=40), st.integers(1, 200))
def test_batches_hold_each_pair_once_within_the_limit(lengths, limit):
    batches = list(fill_batches(lengths, limit))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    for batch in batches:
        widths = [max(lengths[number][side] for number in batch) for side in (0, 1)]
        assert len(batch) == 1 or len(batch) * sum(widths) <= limit


def test_padding_is_masked_and_predicts_nothing():
    batch = pad_pairs([([5, 6, 7], [8, 9]), ([5], [4, 3, 2])], start=1, padding=0)
    assert batch.sources.tolist() == [[5, 6, 7], [5, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.inputs.tolist() == [[1, 8, 0], [1, 4, 3]]
    assert (batch.index.tolist(), batch.labels.tolist(), batch.sizes) == ([0, 1, 3, 4, 5], [8, 9, 4, 3, 2], (2, 3))


def test_pretrained_takes_the_form_that_it_is_told_and_refuses_the_other(tmp_path, tiny, encoder_decoder):
    ctx = make_context(tmp_path / "made")
    luthier_models.pretrained(ctx, model=str(encoder_decoder), form="seq2seq-lm")
    assert json.loads((ctx.output / "config.json").read_text())["is_encoder_decoder"]
    before, after = (load_by_config(path).state_dict() for path in (encoder_decoder, ctx.output))
    assert all(torch.equal(before[name], after[name]) for name in before)
    for model, form, remedy in [
        (encoder_decoder, "causal-lm", "Write `form: seq2seq-lm` beside `model`."),
        (tiny, "seq2seq-lm", "Write `form: causal-lm` beside `model`."),
    ]:
        with pytest.raises(InputError, match=r"is no .* but ") as caught:
            luthier_models.pretrained(make_context(tmp_path / form), model=str(model), form=form)
        assert caught.value.remedy == remedy


def test_a_gguf_file_is_no_encoder_decoder(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(InputError, match="read as decoders"):
        luthier_models.pretrained(make_context(tmp_path / "run"), model=str(tmp_path / "model.gguf"), form="seq2seq-lm")


@pytest.mark.parametrize("encoder_decoder", ["t5"], indirect=True)
def test_a_decoder_without_a_start_is_refused(tmp_path, encoder_decoder):
    shutil.copytree(encoder_decoder, tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        record = json.loads((tmp_path / "model" / name).read_text())
        record.pop("decoder_start_token_id", None)
        (tmp_path / "model" / name).write_text(json.dumps(record))
    with pytest.raises(InputError, match="which token its decoder starts with"):
        start_token(load_by_config(tmp_path / "model"))
