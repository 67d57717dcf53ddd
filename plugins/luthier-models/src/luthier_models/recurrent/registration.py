"""Registers the recurrent models with transformers, so that its auto classes load them without code from a model."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from luthier_models.recurrent.language_model import RnnConfig, RnnForCausalLM, RnnModel


def register() -> None:
    """Let transformers' auto classes know the recurrent models; calling it again changes nothing."""
    AutoConfig.register(RnnConfig.model_type, RnnConfig, exist_ok=True)
    AutoModel.register(RnnConfig, RnnModel, exist_ok=True)
    AutoModelForCausalLM.register(RnnConfig, RnnForCausalLM, exist_ok=True)
