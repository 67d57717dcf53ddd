"""The page: whole and partial runs, hostile texts, nothing from outside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import polars as pl
import pytest

from luthier import Run
from luthier.runrecord import GateResult
from luthier.trials import SearchResult, Trial
from luthier_report._page import report_page

VOID = {"meta", "img", "br", "link", "input", "hr"}
SVG_VOID = {"path", "line", "circle"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_whole_run_has_every_section(whole_run: Run) -> None:
    page = Page(report_page(whole_run))
    titles = ["verdict", "evaluation", "generations", "data", "bias", "model", "size", "recipe", "lineage"]
    assert [section["id"] for section in page.named("section")] == titles
    links = [str(link["href"]) for link in page.named("a")]
    assert {link.removeprefix("#") for link in links} == set(titles)
    assert len(page.named("h1")) == 1
    assert len(page.named("caption")) == len(page.named("table"))


def test_the_verdict_compares_with_the_base(whole_run: Run) -> None:
    text = Page(report_page(whole_run)).text
    assert "This model is better than the base model: ROUGE-L 0.298 against 0.155" in text
    assert "All 2 gates passed." in text
    gate = whole_run.gates[0]
    low, high = re.findall(r"is ([\d.]+) to ([\d.]+)$", gate.reason)[0]
    # The interval of the table is the one by which the gate decided.
    assert f"+{float(low):.3g} to +{float(high):.3g}" in text


def test_nothing_comes_from_outside_and_nothing_runs(whole_run: Run) -> None:
    html = report_page(whole_run)
    page = Page(html)
    assert page.named("script") == []
    assert page.named("link") == []
    assert {str(image["src"])[:26] for image in page.named("img")} == {"data:image/svg+xml;base64,"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(str(link["href"]).startswith("#") for link in page.named("a"))
    policy = page.named("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'" in str(policy["content"])
    assert "url(" not in html
    assert "@import" not in html


def test_hostile_texts_are_shown_and_harmless(whole_run: Run) -> None:
    html = report_page(whole_run)
    assert "<script>" not in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in html
    assert "&lt;b&gt;bad&lt;/b&gt;" in html
    assert "\x00" not in html
    assert "\u202e" not in html
    assert "␀ ⟨U+202E⟩txet" in html
    assert "\\ud800 half" in html
    html.encode("utf-8")


def test_the_funnel_tells_every_count(whole_run: Run) -> None:
    text = Page(report_page(whole_run)).text
    assert "24,310 added, 3 quarantined" in text
    assert "23,898 kept as they were, 412 changed" in text
    assert "18,190 kept as they were, 6,120 dropped" in text
    assert "train 90, valid 4, test 6" in text


def test_changes_are_marked_in_place(whole_run: Run) -> None:
    html = report_page(whole_run)
    assert "<del>cafÃ©</del><ins>café</ins>" in html
    assert "is<del>␣</del> open" in html


def test_generations_are_joined_by_id_and_scored(whole_run: Run) -> None:
    page = Page(report_page(whole_run))
    assert len(page.named("article")) == 9
    assert page.text.count("Base model · ROUGE-L") == 9
    assert page.text.count("Before export · ROUGE-L") == 9
    assert page.text.count("among the worst") == 3


def test_sizes_speeds_and_times(whole_run: Run) -> None:
    text = Page(report_page(whole_run)).text
    assert "1.71 MB 64%" in text
    assert "training tokens per second 393.8" in text
    assert "rouge 21 s 1 min 23 s 1 min 20 s" in text
    assert "4 min 11 s" in text


def test_the_learning_curve_has_both_losses(whole_run: Run) -> None:
    html = report_page(whole_run)
    assert html.count('<circle class="held-out"') == 4
    assert "held out from 3.9 to 2.37" in html


def test_a_pruner_s_curve_is_shown_under_its_step(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    for name in ("data", "model"):
        parts[name](builder)
    step = builder.step("layers", "prune", "layers", config={"ratio": 0.2})
    sizes = pl.DataFrame({"parameters": [135_000_000, 110_000_000], "mean_kl": [0.0, 0.75]})
    builder.note(step, metrics={"mean_kl": 0.75}, tables={"quality-by-size": sizes})
    html = report_page(builder.finish())
    assert "divergence from the model before" in html
    assert '<i class="training"></i>KL divergence</li>' in html


def measured_sizes(builder: Any, *, fewer_examples: bool = False) -> Run:
    """Models of three sizes, two of them pruned and healed, each measured by `rouge`; the last one also packed."""
    for number, (size, quality) in enumerate(((3000, 0.35), (2000, 0.34), (1000, 0.2))):
        step = builder.step(f"healed-{number}", "tune", "distill")
        builder.note(step)
        builder.give(step, "model", "causal-lm", {"model.safetensors": bytes([number]) * size * 1000})
        config = {"max_examples": 50 if fewer_examples and number == 2 else 200}
        rouge = builder.step(f"of-{number}", "validate", "rouge", kind="report", config=config)
        metrics = {"lead_rougeL": 0.28, "rouge1": quality + 0.1, "rougeL": quality}
        builder.note(rouge, subject="candidate", metrics=metrics, model=step.artifact)
    packed = builder.step("packed", "export", "genai")
    builder.note(packed)
    builder.give(packed, "onnx", "genai", {"model.onnx": bytes(500_000)})
    delivered = builder.step("delivered", "validate", "rouge", kind="report", config={"max_examples": 200})
    builder.note(delivered, subject="candidate", metrics={"rougeL": 0.19}, model=packed.artifact)
    builder.data.gates.append(GateResult("delivered", "rougeL", 0.19, "at least 0.1", True, "rougeL is 0.19"))
    return builder.finish()


def test_models_of_several_sizes_that_one_validator_measured_are_drawn_by_size(builder: Any) -> None:
    html = report_page(measured_sizes(builder))
    # The metric that a gate watches, the smallest model first, each form by itself.
    assert "Quality by size: ROUGE-L of the models of the form causal-lm: ROUGE-L from 0.2 to 0.35" in html
    assert html.count("Quality by size") == 2  # the label and the caption of one figure: one packed model is no curve
    told = Page(html).text
    assert (
        "ROUGE-L of each model that rouge measured on the same examples; higher is better Model of Form Size ROUGE-L "
        "healed-0 causal-lm 3 MB 0.35 healed-1 causal-lm 2 MB 0.34 healed-2 causal-lm 1 MB 0.2 "
        "packed genai 500 kB 0.19"
    ) in told


def test_models_that_were_measured_on_other_examples_are_not_compared(builder: Any) -> None:
    told = Page(report_page(measured_sizes(builder, fewer_examples=True))).text
    assert "healed-1 causal-lm 2 MB 0.34 packed genai 500 kB 0.19" in told
    assert "causal-lm: ROUGE-L from 0.34 to 0.35" in report_page(builder.finish())


def test_models_that_were_held_against_others_are_not_compared_and_bytes_are_what_vocabularies_share(
    builder: Any,
) -> None:
    for number, (size, reference) in enumerate(((3, "aa"), (2, "aa"), (1, "bb"))):
        step = builder.step(f"cut-{number}", "prune", "vocabulary")
        builder.note(step)
        builder.give(step, "model", "causal-lm", {"model.safetensors": bytes([number]) * size * 1_000_000})
        parity = builder.step(f"parity-{number}", "validate", "parity", kind="report")
        builder.note(parity, metrics={"mean_kl": 0.1 * number}, model=step.artifact, reference=reference * 32)
        perplexity = builder.step(f"perplexity-{number}", "validate", "perplexity", kind="report")
        metrics = {"perplexity": 30 - number, "bits_per_byte": 1.5 + number / 10}
        builder.note(perplexity, metrics=metrics, model=step.artifact)
    html = report_page(builder.finish())
    told = Page(html).text
    assert "KL divergence of each model that parity measured on the same examples" in told
    assert "cut-0 causal-lm 3 MB 0 cut-1 causal-lm 2 MB 0.1 " in told
    assert "cut-2 causal-lm 1 MB 0.2" not in told
    assert "cut-0 causal-lm 3 MB 1.5 cut-1 causal-lm 2 MB 1.6 cut-2 causal-lm 1 MB 1.7" in told


def test_one_size_is_no_curve(whole_run: Run) -> None:
    assert "Quality by size" not in report_page(whole_run)


def test_lineage_names_code_configuration_and_versions(whole_run: Run) -> None:
    text = Page(report_page(whole_run)).text
    assert "lora of luthier-report, code abababababababab" in text
    assert "learning_rate 0.0005" in text
    assert whole_run.step("genai").artifact in text
    assert "Python 3.11.9" in text
    assert "The 1 other installed distributions Jinja2" in text


def test_a_refused_run_says_so(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    for name in ("data", "model"):
        parts[name](builder)
    parts["validation"](builder, base_quality=0.29)
    builder.data.state = "refused"
    page = Page(report_page(builder.finish()))
    assert "1 of 2 gates refused it: nothing may ship." in page.text
    assert "✗ refused" in page.text
    assert "is not distinguishable from the base model" in page.text


def test_a_gate_that_there_was_no_champion_for_is_neither_passed_nor_refused(
    builder: Any, parts: dict[str, Callable[..., None]]
) -> None:
    for name in ("data", "model", "validation"):
        parts[name](builder)
    why = "rougeL is 0.3; at least champion is skipped: there is no champion 'docs' yet"
    builder.data.gates.append(GateResult("rouge", "rougeL", 0.3, "at least champion", True, why, "champion", True))
    page = Page(report_page(builder.finish()))
    assert "All 2 gates passed. A gate on the champion was skipped: there is no other to compare with." in page.text
    assert "- skipped" in page.text
    assert why in page.text


def test_a_failed_run_has_its_error(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    parts["data"](builder)
    builder.data.state, builder.data.error = "failed", "training diverged at step 3 <b>"
    failed = builder.step("lora", "tune", "lora")
    failed.state, failed.seconds = "failed", 0.0
    waiting = builder.step("rouge", "validate", "rouge")
    waiting.state, waiting.seconds = "waiting", 0.0
    page = Page(report_page(builder.finish()))
    assert "The run failed at the step lora." in page.text
    assert "training diverged at step 3 <b>" in page.text
    assert "It was not reached." in page.text


def test_a_run_of_data_steps_alone(builder: Any, parts: dict[str, Callable[..., None]]) -> None:
    parts["data"](builder)
    page = Page(report_page(builder.finish()))
    assert [section["id"] for section in page.named("section")] == [
        "verdict",
        "data",
        "bias",
        "size",
        "recipe",
        "lineage",
    ]
    assert "Nothing was validated." in page.text


@pytest.mark.parametrize("state", ["interrupted", "failed", "running"])
def test_a_run_that_did_nothing(builder: Any, state: str) -> None:
    builder.data.state = state
    run = builder.finish()
    (run.path / "recipe.yaml").unlink()
    assert [section["id"] for section in Page(report_page(run)).named("section")] == ["verdict", "lineage"]


def test_artifacts_that_are_gone_leave_what_the_record_has(whole_run: Run) -> None:
    shutil.rmtree(whole_run.store.objects_directory)
    whole_run.store.prepare()
    page = Page(report_page(whole_run))
    assert "ROUGE-L 0.298 against 0.155" in page.text
    assert "18,190 kept as they were, 6,120 dropped" in page.text
    assert "Its samples are no longer in the store." in page.text
    assert page.named("article") == []


def test_odd_tables_are_shown_as_they_are(builder: Any) -> None:
    step = builder.step("odd", "validate", "odd", kind="report")
    tables = {
        "empty": pl.DataFrame(schema={"a": pl.String}),
        "nested": pl.DataFrame(
            {"list": [[1, 2]], "struct": [{"a": None}], "flag": [True], "none": [None], "nan": [float("nan")]}
        ),
        "long": pl.DataFrame({"n": range(1000)}),
        "generations": pl.DataFrame({"something": ["else"]}),
    }
    builder.note(step, subject="candidate", tables=tables)
    text = Page(report_page(builder.finish())).text
    assert "Empty, this model: no rows" in text
    assert '[1, 2] {"a": null} yes \N{EN DASH} not a number' in text
    assert "the first 40 of 1,000 rows" in text


def test_a_searched_step_shows_its_candidates_and_why_one_failed(builder: Any) -> None:
    step = builder.step("lora", "tune", "lora")
    builder.note(step, metrics={"valid_loss": 1.5})
    trials = [
        Trial(1, 1, {"rank": 8}, 10.0, value=2.5, seconds=3.0),
        Trial(2, 1, {"rank": 16}, 10.0, value=2.25, seconds=4.0),
        Trial(3, 1, {"rank": 99}, 10.0, state="failed", error="<script>alert(1)</script>"),
        Trial(2, 2, {"rank": 16}, 30.0, value=1.5, seconds=9.0),
    ]
    lists = {"rank": [8, 16, 99]}
    step.search = SearchResult("valid_loss", "lower", "max_steps", "steps", lists, [10.0, 30.0], trials, {"rank": 16})
    html = report_page(builder.finish())
    text = Page(html).text
    assert "rank valid loss at 10 steps valid loss at 30 steps time" in text
    assert "\N{CHECK MARK} 16 2.25 1.5 13 s 8 2.5 3.0 s 99 failed" in text
    assert "failed: rank=99" in text
    assert "<script>alert" not in html


def test_a_very_long_quarantined_record_is_cut(builder: Any) -> None:
    step = builder.step("jsonl", "source", "jsonl")
    counts = {"documents_in": 0, "kept": 0, "changed": 0, "dropped": 0, "quarantined": 1, "added": 1}
    record = '{"text": "' + "x" * (3 << 20)
    builder.note(step, outcome={"counts": counts, "samples": {}}, quarantine=[(record, 'line too long, "record": no')])
    html = report_page(builder.finish())
    assert len(html) < 60_000
    assert "line too long, &#34;record&#34;: no" in html


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_texts_contrast_with_what_they_stand_on(theme: int) -> None:
    # WCAG 2.1, success criterion 1.4.3: at least 4.5 to 1.
    css = (resources.files("luthier_report") / "templates" / "report.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("page", "card")]
    pairs += [("ink", "wash"), ("good", "good-wash"), ("bad", "bad-wash"), ("good", "card"), ("bad", "card")]
    for text, ground in pairs:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
