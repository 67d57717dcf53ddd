"""Registers the recurrent models with transformers, so that its auto classes load them without code from a model."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from luthier_models.recurrent.language_model import RnnConfig, RnnForCausalLM, RnnModel
from luthier_models.recurrent.seq2seq import RnnForConditionalGeneration, RnnSeq2SeqConfig


def register() -> None:
    """Let transformers' auto classes know the recurrent models; calling it again changes nothing."""
    AutoConfig.register(RnnConfig.model_type, RnnConfig, exist_ok=True)
    AutoModel.register(RnnConfig, RnnModel, exist_ok=True)
    AutoModelForCausalLM.register(RnnConfig, RnnForCausalLM, exist_ok=True)
    AutoConfig.register(RnnSeq2SeqConfig.model_type, RnnSeq2SeqConfig, exist_ok=True)
    AutoModelForSeq2SeqLM.register(RnnSeq2SeqConfig, RnnForConditionalGeneration, exist_ok=True)
