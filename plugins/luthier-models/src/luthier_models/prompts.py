"""How a user's plain text becomes the tokens that a model reads: the one rendering of prompts.

Tuning, scoring and every runtime use this module, so that a model is trained, validated and served on
the same tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from luthier import InputError, Message
from luthier_models.heads import CLASSIFIER, names_classifier, read_labels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from luthier import Prompt

# Stands for a user's message while the end of a turn is read off the template.
_MESSAGE = "message"
_END_TOKEN_FILES = ("generation_config.json", "config.json", "genai_config.json")

_NO_LIMIT = 10**9

_COUNTED_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Architectures whose first position has the number after the padding token's, so that the rows before it are lost."""


class PromptEncoder:
    """Renders prompts and completions with a model's chat template, and tokenises them.

    A prompt is a single user message, or a conversation, followed by the template's generation prompt; a
    system message that the template adds by itself stays. A completion is what the template writes after that prompt,
    up to and including the token that ends the turn. Text that the template puts after that token (a
    newline, often) is left out: no runtime ever gets to generate it.

    Prompt and completion are tokenised apart, because that is how they meet in serving: the prompt's
    tokens are settled before the first token of the completion exists.

    A model without a template continues the prompt as it stands; its completions end with the
    end-of-sequence token. An encoder reads the prompt as its tokenizer closes texts, and the decoder writes what
    the tokenizer makes of a target: with a token of its own at the start where there is one (BART's, or a
    language's), without the start token that the decoder reads.

    Args:
        tokenizer: the tokenizer, with its chat template if it has one.
        end_tokens: further ids that end a generation, as the model's configuration names them.
        context: the tokens that the model has positions for, on each side of an encoder-decoder; None where it has no
            such limit, or none is known.
        encoder_decoder: whether one half of the model reads prompts and the other writes completions.
        labels: of a classifier, in the order of its logits.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: Sequence[int] = (),
        context: int | None = None,
        *,
        encoder_decoder: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self.encoder_decoder = encoder_decoder
        self.labels = list(labels)
        self._end_tokens = {*end_tokens}
        if tokenizer.eos_token_id is not None:
            self._end_tokens.add(int(tokenizer.eos_token_id))
        self._ending = ""
        self._end_of_turn = self._read_end_of_turn() if self.has_template else ""

    @classmethod
    def from_directory(cls, directory: str | Path) -> PromptEncoder:
        """Read the tokenizer, the template, the end tokens and the context of a model directory (also a genai one).

        Raises:
            InputError: if the directory has no tokenizer that can be read.
        """
        directory = Path(directory)
        return cls(
            load_tokenizer(directory),
            read_end_tokens(directory),
            read_context(directory),
            encoder_decoder=read_form(directory) == "seq2seq-lm",
            labels=read_labels(directory),
        )

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def text_length(self) -> int | None:
        """The tokens that a classifier reads of a text: those of its context, or fewer if it was trained on fewer.

        As `model_max_length` of the tokenizer has it, by which transformers' own pipelines cut texts.
        """
        # A tokenizer that knows no limit has a number that is far too large.
        trained = int(self.tokenizer.model_max_length)
        known = [length for length in (self.context, trained) if length is not None and length < _NO_LIMIT]
        return min(known, default=None)

    @property
    def end_tokens(self) -> set[int]:
        """The ids that end a generation."""
        return set(self._end_tokens)

    def prompt(self, prompt: Prompt) -> list[int]:
        """The ids that a model reads before it answers.

        Raises:
            InputError: if the prompt is a conversation, and the model has no template or one that refuses it.
        """
        if not self.has_template:
            if not isinstance(prompt, str):
                raise InputError(
                    "the model has no chat template, so it cannot be given a conversation",
                    "Use a model with one, or put a chat_template.jinja beside its tokenizer; "
                    "or make prompts and completions with the formatter `prompt-completion`.",
                )
            ids = self._encode(prompt, special=True)
            return ids if self.encoder_decoder else self._without_final_eos(ids)
        messages = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
        return self._encode(self._render(messages, generation_prompt=True), special=False)

    def completion(self, text: str) -> list[int]:
        """The ids of an answer, with those that end the turn."""
        if not self.has_template:
            eos = self.tokenizer.eos_token_id
            if self.encoder_decoder:
                ids = list(self.tokenizer(text_target=text, verbose=False)["input_ids"])
                return ids if eos is None or ids[-1:] == [eos] else [*ids, int(eos)]
            return self._encode(text, special=False) + ([] if eos is None else [int(eos)])
        rendered = self._render_answer(text)
        cut = rendered.rfind(self._end_of_turn) if self._end_of_turn else -1
        if cut >= 0:
            rendered = rendered[: cut + len(self._end_of_turn)]
        return self._encode(rendered, special=False)

    def text(self, text: str) -> list[int]:
        """The ids of plain text, without template; a beginning-of-sequence token if the model has it."""
        return self._without_final_eos(self._encode(text, special=True))

    def document(self, text: str, max_length: int | None = None) -> list[int]:
        """The ids that a classifier reads: what its tokenizer makes of the text, of `max_length` at most.

        Special tokens are those of the tokenizer, without a template, and a text that is too long loses its end: so
        transformers' own pipelines read it.
        """
        cut: dict[str, Any] = {} if max_length is None else {"truncation": True, "max_length": max_length}
        return list(self.tokenizer(text, verbose=False, **cut)["input_ids"])

    def pair(self, prompt: Prompt, completion: str) -> tuple[list[int], list[int]]:
        """The ids that are given and the ids that are scored.

        An empty prompt means language modelling: the completion is plain text, scored after its
        beginning-of-sequence token or, without one, after its own first token.

        Raises:
            InputError: if the prompt is empty, and the model is an encoder-decoder.
        """
        if prompt:
            return self.prompt(prompt), self.completion(completion)
        if self.encoder_decoder:
            raise InputError(
                "there is a text without a prompt, and the model is an encoder-decoder: it writes what follows from a "
                "prompt, and does not model texts alone",
                "Leave out such rows, or use a decoder (`family: llama`, say).",
            )
        ids = self.text(completion)
        return ids[:1], ids[1:]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, up to the first end token, without special tokens."""
        kept: list[int] = []
        for token in ids:
            if token in self._end_tokens:
                break
            kept.append(int(token))
        # No "clean-up" of spaces: it would change code and quotations.
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _read_end_of_turn(self) -> str:
        """What the template writes after an answer, up to the token that ends the turn, which it notes."""
        answer = self._render_answer(_MESSAGE)
        ending = answer[answer.rfind(_MESSAGE) + len(_MESSAGE) :]
        self._ending = ending
        ids = self._encode(ending, special=False)
        # The turn ends with the last token of the ending that is special or known to stop a generation.
        special = self._end_tokens | set(self.tokenizer.all_special_ids)
        ends = [position for position, token in enumerate(ids) if token in special]
        if not ends:
            return ending
        self._end_tokens.add(ids[ends[-1]])
        last = str(self.tokenizer.convert_ids_to_tokens(ids[ends[-1]]))
        cut = ending.rfind(last)
        return ending[: cut + len(last)] if cut >= 0 else ending

    def _render_answer(self, text: str) -> str:
        """What the template writes for an answer, after the generation prompt."""
        question = [Message(role="user", content=_MESSAGE)]
        prompt = self._render(question, generation_prompt=True)
        whole = self._render([*question, Message(role="assistant", content=text)], generation_prompt=False)
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        # A template whose generation prompt is no prefix of its answers (it opens a scratch pad, say):
        # the answer starts where its text does.
        # The ending is left out of the search: a short answer may occur in it.
        start = whole.rfind(text.strip(), 0, len(whole) - len(self._ending)) if text.strip() else -1
        return whole[start:] if start >= 0 else text

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                [{"role": each["role"], "content": each["content"]} for each in messages],
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except (TemplateError, TypeError) as error:
            raise InputError(
                f"the model's chat template cannot be rendered: {error}",
                "Mend chat_template.jinja in the model's directory, or remove it to tune without a template.",
            ) from error
        return str(rendered)

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return list(ids)

    def _without_final_eos(self, ids: list[int]) -> list[int]:
        # Some tokenizers close every text; a prompt must stay open.
        return ids[:-1] if self._closes_texts else ids

    @cached_property
    def _closes_texts(self) -> bool:
        eos = self.tokenizer.eos_token_id
        return eos is not None and self._encode("a", special=True)[-1] == eos != self._encode("a", special=False)[-1]


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory, without running code from it.

    Raises:
        InputError: if there is none or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(directory), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError, ImportError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{directory}: its tokenizer cannot be read: {_first_line(error)}",
            "Put the tokenizer's files (tokenizer.json and tokenizer_config.json) of the model beside its weights.",
        ) from error
    return tokenizer


def read_form(directory: Path) -> str:
    """The form of a model directory by its configuration: `sequence-classifier`, `seq2seq-lm` or else `causal-lm`."""
    record = _read_record(directory / "config.json")
    if names_classifier(record.get("architectures")):
        return CLASSIFIER
    return "seq2seq-lm" if record.get("is_encoder_decoder") else "causal-lm"


def read_end_tokens(directory: Path) -> list[int]:
    """The end-of-sequence ids that a model directory's configuration files name."""
    found: set[int] = set()
    for name in _END_TOKEN_FILES:
        record = _read_record(directory / name)
        if name == "genai_config.json":
            record = record.get("model", {})
        ids = record.get("eos_token_id")
        # Some models on the hub name `null` among several.
        found.update(each for each in (ids if isinstance(ids, list) else [ids]) if isinstance(each, int))
    return sorted(found)


def read_context(directory: Path) -> int | None:
    """The tokens that a model has positions for; None where its configuration names no such limit."""
    from transformers import AutoConfig

    packed = _read_record(directory / "genai_config.json").get("model", {})
    if isinstance(packed, dict) and isinstance(packed.get("context_length"), int):
        return int(packed["context_length"])
    try:
        config = AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return None  # Loading the model explains what is wrong with it.
    text = config.get_text_config(decoder=True)
    positions = getattr(text, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    lost = (text.pad_token_id or 0) + 1 if text.model_type in _COUNTED_AFTER_PADDING else 0
    return positions - lost


def vocabularies(tokenizer: PreTrainedTokenizerBase) -> list[dict[str, int]]:
    """The ids of tokens: one table, or one for what is read and one for what is written, as Marian's may have."""
    tables = [tokenizer.get_vocab()]
    if getattr(tokenizer, "separate_vocabs", False):
        tables.append(cast("Any", tokenizer).target_encoder)
    return tables


def _read_record(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}", "Restore the file from where the model came.") from error
    return record


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
