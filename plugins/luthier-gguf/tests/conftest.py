from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from luthier import Context
from luthier_gguf import comparison
from luthier_models import verification
from luthier_models.normalise import save_model
from luthier_models.testing import CHATML, tiny_tokenizer

ROPE = {"rope_type": "default", "rope_theta": 123.0}  # not the default, so that one that is lost shows

GATED: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": ROPE,
}
TINY: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "llama with biases": {**GATED, "attention_bias": True, "mlp_bias": True},
    "llama of version 3": {
        **GATED,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "llama, stretched": {**GATED, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 123.0}},
    "mistral": {**GATED, "sliding_window": None, "head_dim": 16},
    "qwen2": GATED,
    "qwen3": {**GATED, "head_dim": 32},
    "smollm3": {**GATED, "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
    "olmo2": GATED,
    "stablelm": {**GATED, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}},
    "stablelm, in parallel": {**GATED, "use_parallel_residual": True, "use_qkv_bias": True},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2},
}
"""Configurations, by the `model_type` and what is special about each."""
UNREAD = ("smollm3", "olmo2")
"""Those that transformers does not read back from GGUF."""


@pytest.fixture(scope="session", autouse=True)
def compared_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports are compared in the tests' own process: in a new one each would take seconds to load PyTorch."""

    in_a_new_process = verification.compared

    def compared(module: str, both: Sequence[str], options: Sequence[str], ctx: Context) -> dict[str, Any]:
        if module != comparison.__name__:
            return in_a_new_process(module, both, options, ctx)
        result = tmp_path_factory.mktemp("compared") / "result.json"
        comparison.main([*both, str(result), *options])
        return dict(json.loads(result.read_text(encoding="utf-8")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "compared", compared)
        yield


@pytest.fixture(params=TINY)
def family(request: pytest.FixtureRequest) -> str:
    """Each name in `TINY`."""
    return str(request.param)


@pytest.fixture(params=[name for name in TINY if name not in UNREAD])
def read_back(request: pytest.FixtureRequest) -> str:
    """Each name in `TINY` that transformers reads back."""
    return str(request.param)


@pytest.fixture(params=UNREAD)
def unread(request: pytest.FixtureRequest) -> str:
    """Each name in `TINY` that transformers does not read back."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a tiny model of random weights: its directory, by its name in `TINY`."""

    def write(name: str, *, tied: bool = True, template: str | None = CHATML, **settings: Any) -> Path:
        tokenizer = tiny_tokenizer(template)
        config = AutoConfig.for_model(
            name.replace(",", "").split()[0],
            **deepcopy(TINY[name])
            | {
                "vocab_size": 384,  # more rows than tokens, as many models have
                "max_position_embeddings": 128,
                "tie_word_embeddings": tied,
                "initializer_range": 0.2,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            }
            | settings,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                # Norms and biases too: a vector of ones, or of zeros, would not show that it was lost.
                parameter.data += 0.1 * torch.randn_like(parameter)
        directory = tmp_path_factory.mktemp("tiny") / "model"
        save_model(model, tokenizer, directory)
        return directory

    return write
