"""Recurrent models as transformers models: their cells, their classes, and how transformers gets to know them.

Importing this module loads nothing; `registration.register` lets transformers' auto classes find the models.
"""

from __future__ import annotations

CAUSAL_LMS = {"rnn-lm": "RnnForCausalLM"}
"""The `model_type` of our causal language models, and the class of each, as transformers' own tables have them."""

SEQ2SEQ_LMS = {"rnn-seq2seq": "RnnForConditionalGeneration"}
"""The same of our encoder-decoders."""
