"""Prompts and completions are rendered as the template would."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import InputError
from luthier_models.prompts import PromptEncoder, read_context, read_end_tokens
from luthier_models.testing import CHATML, tiny_tokenizer

ENCODER = PromptEncoder(tiny_tokenizer())
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}(hm)\n{% endif %}"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def whole(encoder, prompt, completion):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return encoder.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=80).filter(lambda text: not text[:1].isspace()))
def test_prompt_and_completion_are_the_conversation(prompt, completion):
    # What follows the end of the turn (here a newline) is left out: no model gets to generate it.
    ids = ENCODER.prompt(prompt) + ENCODER.completion(completion)
    assert ids + ENCODER.tokenizer("\n")["input_ids"] == whole(ENCODER, prompt, completion)
    assert ids[-1] == ENCODER.tokenizer.convert_tokens_to_ids("<|im_end|>")


@settings(deadline=None)
@given(st.text(max_size=80))
def test_decoding_a_completion_gives_its_text(text):
    assert ENCODER.decode(ENCODER.completion(text)) == text


def test_the_system_message_of_the_template_stays():
    assert ENCODER.tokenizer.decode(ENCODER.prompt("hi")) == (
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_a_template_adds_to_an_answer_is_learnt():
    encoder = PromptEncoder(tiny_tokenizer(THINKING))
    assert encoder.tokenizer.decode(encoder.completion(" yes ")) == "(hm)\nyes<|im_end|>"


def test_a_model_without_template_continues_the_prompt():
    encoder = PromptEncoder(tiny_tokenizer(None))
    assert encoder.prompt("a table") == encoder.tokenizer("a table")["input_ids"]
    assert encoder.completion("x")[-1] == encoder.tokenizer.eos_token_id


def test_an_empty_prompt_means_language_modelling():
    given, targets = ENCODER.pair("", "Return the table.")
    assert len(given) == 1
    assert ENCODER.tokenizer.decode(given + targets) == "Return the table."
    assert ENCODER.pair("", "") == ([], [])


def test_end_tokens_of_all_configuration_files(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, None, 6]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": None}))
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"eos_token_id": 7}}))
    assert read_end_tokens(tmp_path) == [5, 6, 7]
    assert PromptEncoder(tiny_tokenizer(), [5]).end_tokens == {2, 5}


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"model_type": "llama", "max_position_embeddings": 77}, 77),
        ({"model_type": "gpt2", "n_positions": 78}, 78),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "t5"}, None),  # positions relative to each other, as far as one likes
        ({"model_type": "nobody knows"}, None),
        (None, None),
    ],
)
def test_the_context_is_what_the_configuration_says(tmp_path, config, context):
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_context(tmp_path) == context


def test_a_template_that_cannot_be_rendered():
    with pytest.raises(InputError, match="chat template cannot be rendered"):
        PromptEncoder(tiny_tokenizer(CHATML + "{{ raise_exception('no') }}"))


@pytest.mark.slow
def test_smollm2_prompt_and_completion_are_the_conversation(smollm2):
    encoder = PromptEncoder.from_directory(smollm2)
    ids = encoder.prompt("Summarize in one line:\nReturn 12 rows.") + encoder.completion("Return rows.")
    text = encoder.tokenizer.decode(ids)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    newline = encoder.tokenizer("\n")["input_ids"]
    assert ids + newline == whole(encoder, "Summarize in one line:\nReturn 12 rows.", "Return rows.")
    assert encoder.end_tokens == {2}
