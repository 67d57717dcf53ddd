"""Tiny models of every family, and examples to calibrate on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Dataset, Model

WORDS = ["table", "row", "file", "array", "format", "read", "write", "number", "name", "value"]
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "stablelm", "gpt2", "opt"]


def example_rows(count: int = 24) -> pl.DataFrame:
    rows = []
    for i in range(count):
        words = [WORDS[(i * 7 + j * 3) % len(WORDS)] for j in range(3 + i % 9)]
        text = f"The {words[0]} of the {words[1]}."
        rows.append(
            {
                "id": f"e{i}",
                "group": f"g{i}",
                "split": "valid" if i % 6 == 5 else "train",
                "prompt": "Summarize in one line: " + " ".join(words),
                "completion": text,
                "text": f"{text} " * 4,
                "messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": text}],
            }
        )
    return pl.DataFrame(rows)


def write_dataset(directory: Path, frame: pl.DataFrame, form: str = "prompt-completion") -> Dataset:
    directory.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(directory / "shard-00000.parquet")
    return Dataset.at(directory, form)


def write_family(directory: Path, family: str, *, layers: int = 4, channels: int = 96) -> Path:
    """A random decoder of a family: 4 heads, 2 for keys and values where it shares them, an MLP."""
    import transformers as t

    from luthier_models.normalise import save_model
    from luthier_models.testing import tiny_tokenizer
    from luthier_models.untrained import initialised

    tokenizer = tiny_tokenizer()
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama = {
        "hidden_size": 64,
        "intermediate_size": channels,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        **size,
    }
    configs = {
        "llama": lambda: t.LlamaConfig(**llama, tie_word_embeddings=True),
        "mistral": lambda: t.MistralConfig(**llama, sliding_window=None),
        "qwen2": lambda: t.Qwen2Config(**llama),
        "qwen3": lambda: t.Qwen3Config(**llama, head_dim=16),
        "smollm3": lambda: t.SmolLM3Config(**llama, no_rope_layers=[1, 0, 1, 0][:layers]),
        "olmo2": lambda: t.Olmo2Config(**llama),
        "stablelm": lambda: t.StableLmConfig(**llama, use_qkv_bias=True),
        "gpt2": lambda: t.GPT2Config(
            **size, n_positions=256, n_embd=64, n_layer=layers, n_head=4, n_inner=channels, initializer_range=0.2
        ),
        "opt": lambda: t.OPTConfig(
            **size,
            hidden_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            ffn_dim=channels,
            max_position_embeddings=256,
            word_embed_proj_dim=64,
            init_std=0.2,
        ),
    }
    save_model(initialised(configs[family](), "causal-lm", 3), tokenizer, directory)
    return directory


@pytest.fixture(scope="session", params=FAMILIES)
def family(request, tmp_path_factory) -> Model:
    return Model.at(write_family(tmp_path_factory.mktemp(request.param) / "model", request.param), "causal-lm")


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Model:
    return Model.at(write_family(tmp_path_factory.mktemp("llama") / "model", "llama"), "causal-lm", "0" * 64)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> Model:
    return Model.at(write_family(tmp_path_factory.mktemp("gpt2") / "model", "gpt2"), "causal-lm")


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data"), example_rows())


@pytest.fixture
def make_dataset(tmp_path):
    def make(frame: pl.DataFrame, form: str = "prompt-completion") -> Dataset:
        return write_dataset(tmp_path / "data", frame, form)

    return make


@pytest.fixture
def rows():
    return example_rows
