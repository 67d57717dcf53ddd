"""Encoding of examples: nothing learnt is lost, nothing is longer than allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import InputError
from luthier_models.prompts import PromptEncoder
from luthier_models.testing import tiny_tokenizer
from luthier_tune.examples import batch_of_step, encode_conversations, encode_prompts, encode_split, encode_texts

ENCODER = PromptEncoder(tiny_tokenizer())


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(48, 120))
def test_a_long_prompt_is_shortened_and_its_template_stays_whole(text, max_length):
    done = encode_prompts(["Say: " + text], ["A file."], ENCODER, max_length)
    for ids, targets in done.pairs:
        assert len(ids) + len(targets) <= max_length
        assert targets == ENCODER.completion("A file.")
        assert ENCODER.tokenizer.decode(ids).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_shortening_keeps_the_beginning_of_the_text():
    done = encode_prompts(["alpha " + "table " * 200], ["A file."], ENCODER, 100)
    assert done.shortened == 1
    assert 90 < len(done.pairs[0][0]) + len(done.pairs[0][1]) <= 100
    assert "alpha table" in ENCODER.tokenizer.decode(done.pairs[0][0])


def test_empty_and_too_long_completions_are_skipped_and_counted():
    done = encode_prompts(["a", "b", "c", "d"], ["", None, "word " * 300, "fine"], ENCODER, 100)
    assert done.skipped == 3
    assert len(done.pairs) == 1


@settings(deadline=None)
@given(st.text(min_size=1, max_size=400), st.integers(8, 40))
def test_pieces_of_a_text_teach_each_token_once(text, max_length):
    done = encode_texts([text], ENCODER, max_length)
    if not text.strip():
        assert (done.pairs, done.skipped) == ([], 1)
        return
    learnt = [token for _, targets in done.pairs for token in targets]
    assert [done.pairs[0][0][0], *learnt] == [*ENCODER.text(text), ENCODER.tokenizer.eos_token_id]
    assert all(len(ids) + len(targets) <= max_length for ids, targets in done.pairs)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 3))
def test_each_epoch_has_every_example_once(examples, batch_size, seed):
    steps = -(-examples // batch_size)
    for epoch in range(2):
        seen = [i for s in range(steps) for i in batch_of_step(epoch * steps + s, examples, batch_size, seed)]
        assert sorted(seen) == list(range(examples))


def test_a_dataset_without_splits_is_refused(make_dataset, rows):
    with pytest.raises(InputError, match="no column `split`"):
        encode_split(make_dataset(rows().drop("split")), "train", ENCODER, 100)


def test_a_conversation_gives_an_example_for_each_answer():
    encoder = PromptEncoder(tiny_tokenizer())
    talk = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "second"},
    ]
    found = encode_conversations([talk, [*talk[:1], {"role": "assistant", "content": " "}]], encoder, 512)
    assert (len(found.pairs), found.skipped) == (2, 1)
    (_, first), (given, second) = found.pairs
    whole = encoder.tokenizer.apply_chat_template(talk, tokenize=False)
    assert encoder.tokenizer.decode([*given, *second]) + "\n" == whole
    assert encoder.decode(first) == "first"
    assert encode_conversations([talk], encoder, len(given)).skipped == 1
