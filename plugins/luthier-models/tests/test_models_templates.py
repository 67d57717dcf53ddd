"""Chat templates of each family: what is trained on, validated and served are the same tokens.

The templates are written here, in the form that each family's has; `tests/` with the real model covers SmolLM2's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luthier import InputError, Message
from luthier_models.prompts import PromptEncoder
from luthier_models.testing import tiny_tokenizer

LOOP = "{% for m in messages %}"
REFUSE_SYSTEM = "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


@dataclass(frozen=True)
class Family:
    """A template, the text that ends a turn, and what it says by itself before the user's message.

    Attributes:
        template: in Jinja.
        end: the token that ends an answer.
        hidden: a system message that the template adds by itself.
        system: whether it takes a system message.
    """

    template: str
    end: str
    hidden: str = ""
    system: bool = True


CHATML = LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHATML_GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
FAMILIES = {
    # Qwen, SmolLM2: a system message of their own, unless there is one.
    "chatml with a default system message": Family(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
        + CHATML
        + CHATML_GENERATION,
        "<|im_end|>",
        hidden="You are kind.",
    ),
    "chatml": Family(CHATML + CHATML_GENERATION, "<|im_end|>"),
    # Llama 3: headers, contents trimmed, a date in the system turn.
    "headers": Family(
        "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: 1 May\n"
        "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
        "{% set messages = messages[1:] %}{% endif %}"
        "<|eot_id|>"
        + LOOP
        + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|eot_id|>",
        hidden="Today: 1 May",
    ),
    # Llama 2 and Mistral: no generation prompt at all; the end-of-sequence token ends an answer.
    "instructions": Family(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set said = messages[0].content + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set said = '' %}{% endif %}"
        + LOOP
        + "{% if m.role == 'user' %}[INST] {{ (said if loop.index0 == 0 else '') + m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "</s>",
    ),
    # Gemma: the assistant is called otherwise, system messages are refused.
    "turns": Family(
        "{{ bos_token }}"
        + LOOP
        + REFUSE_SYSTEM
        + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<end_of_turn>",
        system=False,
    ),
    # Zephyr, Phi 3: a role token on a line of its own, the end token after each message.
    "roles": Family(
        LOOP + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        "<|end|>",
    ),
    # Reasoning models: the generation prompt opens a scratch pad, which earlier answers do not show.
    "scratch pad": Family(
        CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n</think>\n{% endif %}", "<|im_end|>"
    ),
}
WORDS = st.text(st.sampled_from("abc def.\n"), min_size=1, max_size=30).map(str.strip).filter(bool)


def encoder_of(family: Family) -> PromptEncoder:
    tokenizer = tiny_tokenizer(family.template)
    tokenizer.add_special_tokens({"additional_special_tokens": [family.end], "bos_token": "<s>", "eos_token": "</s>"})
    return PromptEncoder(tokenizer)


ENCODERS = {name: encoder_of(family) for name, family in FAMILIES.items()}


def text(encoder: PromptEncoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_end_of_the_turn_is_learnt_and_ends_a_generation(name: str) -> None:
    encoder, family = ENCODERS[name], FAMILIES[name]
    targets = encoder.completion("yes")
    assert text(encoder, targets).strip() == f"yes{family.end}"
    assert targets[-1] == encoder.tokenizer.convert_tokens_to_ids(family.end)
    assert targets[-1] in encoder.end_tokens
    assert encoder.decode(targets).strip() == "yes"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_template_says_by_itself_is_in_every_prompt(name: str) -> None:
    encoder, family = ENCODERS[name], FAMILIES[name]
    of_text = encoder.prompt("quince")
    # Training and scoring use `pair`, serving `prompt`; a text is a conversation of one message.
    assert encoder.pair("quince", "yes")[0] == of_text == encoder.prompt([Message(role="user", content="quince")])
    assert family.hidden in text(encoder, of_text)
    assert text(encoder, of_text).count("quince") == 1


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=25)
@example(turns=[("a", "d")])  # which the mark of a turn's end has as well
@given(turns=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_an_answer_after_a_conversation_is_what_the_template_writes(name: str, turns: list[tuple[str, str]]) -> None:
    encoder = ENCODERS[name]
    talk: list[Message] = []
    for question, answer in turns:
        talk += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    prompt, targets = encoder.pair(talk[:-1], talk[-1]["content"])
    rendered = encoder.tokenizer.apply_chat_template(talk, tokenize=False)
    if name == "scratch pad":
        assert text(encoder, prompt).endswith("<think>\n</think>\n")
        assert text(encoder, targets) == f"{talk[-1]['content']}<|im_end|>"
    else:
        # What follows the end of the turn, a newline often, is never generated.
        assert rendered.startswith(text(encoder, prompt + targets))
        assert not rendered[len(text(encoder, prompt + targets)) :].strip()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_message_replaces_what_the_template_says_or_is_refused(name: str) -> None:
    encoder, family = ENCODERS[name], FAMILIES[name]
    talk = [Message(role="system", content="Be brief."), Message(role="user", content="quince")]
    if not family.system:
        with pytest.raises(InputError, match="cannot be rendered: no system role"):
            encoder.prompt(talk)
        return
    assert "Be brief." in text(encoder, encoder.prompt(talk))
    assert "You are kind." not in text(encoder, encoder.prompt(talk))


def test_a_model_without_template_answers_no_conversation() -> None:
    encoder = PromptEncoder(tiny_tokenizer(None))
    with pytest.raises(InputError, match="no chat template"):
        encoder.prompt([Message(role="user", content="quince")])
