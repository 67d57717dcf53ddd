"""Which decoders optimum-onnx 0.1.0 exports with their cache. Light: planning asks it, without optimum."""

from __future__ import annotations

from luthier import InputError

MODEL_TYPES = frozenset({
    "arcee", "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "bloom", "codegen", "cohere",
    "deepseek_v3", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox", "gpt_oss", "gptj", "granite", "helium", "internlm2", "llama", "marian", "mbart", "mistral", "mpt",
    "nemotron", "olmo", "olmo2", "opt", "pegasus", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe", "smollm3",
    "stablelm",
})  # fmt: skip
"""By transformers' `model_type`; a test asks optimum's own table in the plugin's environment."""


def unknown(model_type: str, remedy: str) -> InputError:
    """The error of a model that optimum has no configuration for."""
    return InputError(f"optimum cannot export models of the type {model_type!r}", remedy)
