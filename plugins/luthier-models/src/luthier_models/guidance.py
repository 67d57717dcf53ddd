"""Completions that keep to a JSON Schema, by llguidance: which tokens may come next."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier import InputError

try:
    import llguidance
    import llguidance.hf
except ImportError as error:
    raise InputError(
        f"a completion that keeps to a schema needs llguidance: {error}", 'pip install "luthier-models[guidance]"'
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luthier_models.prompts import PromptEncoder

# A schema says nothing of spaces, and a model that may write any number of them may write nothing else.
_COMPACT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Reading a vocabulary takes about a second for 50,000 tokens: once for each model that is loaded.
_VOCABULARIES: weakref.WeakKeyDictionary[PromptEncoder, Any] = weakref.WeakKeyDictionary()


class Guide:
    """The tokens that a schema allows, from the first one of a completion on.

    Args:
        encoder: the model's prompt encoder.
        schema: JSON Schema, as JSON.

    Raises:
        InputError: if it is none, asks for what llguidance cannot guide to, or the model's tokenizer is a slow one.
    """

    def __init__(self, encoder: PromptEncoder, schema: str) -> None:
        vocabulary = _vocabulary(encoder)
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
        except ValueError as error:
            raise InputError(f"the schema cannot be kept to: {error}", "Give JSON Schema.") from error
        refused = llguidance.LLMatcher.validate_grammar(grammar, vocabulary)
        if refused:
            raise InputError(f"the schema cannot be kept to: {refused}", "Leave that out of it.")
        self._matcher = llguidance.LLMatcher(vocabulary, grammar)

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits, (vocabulary,), minus infinity where the schema does not allow the token."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = np.zeros(len(logits), bool)
        # Logits may be padded beyond the vocabulary, and a mask to a multiple of 32.
        known = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool)
        mask[: len(known)] = known
        return np.where(mask, logits, np.float32(-np.inf))

    def take(self, token: int) -> bool:
        """Go on with a token that was chosen; gives whether nothing can follow it."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())


def _vocabulary(encoder: PromptEncoder) -> Any:
    if encoder not in _VOCABULARIES:
        tokenizer: Any = encoder.tokenizer
        try:
            _VOCABULARIES[encoder] = llguidance.hf.from_tokenizer(
                tokenizer, eos_token=sorted(encoder.end_tokens) or None
            )
        except ValueError as error:
            raise InputError(
                f"completions of this model cannot be made to keep to a schema: {error}",
                "Use a model that has a tokenizer.json.",
            ) from error
    return _VOCABULARIES[encoder]
