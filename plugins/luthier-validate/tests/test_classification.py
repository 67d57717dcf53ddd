from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier import Dataset, InputError, Score
from luthier.testing import make_context
from luthier_validate import classification
from luthier_validate.labelling import class_scores, confusion, macro_f1
from luthier_validate.templates import check_template, fill

# Labels in order of what the model below thinks; "sport" has two tokens.
ROWS = [
    ("test", "a goal", "sport"),
    ("test", "a vote", "law"),
    ("test", "a match", "law"),
    ("train", "x", "law"),
    ("train", "y", "law"),
    ("train", "z", "sport"),
]
SCORES = {
    ("a goal", "sport"): (-1.0, -0.5),
    ("a goal", "law"): (-2.0,),
    ("a vote", "sport"): (-1.0, -1.0),
    ("a vote", "law"): (-1.2,),
    ("a match", "sport"): (-0.1, -0.1),
    ("a match", "law"): (-3.0,),
}
choices = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1)


class Judge:
    """Finds labels as probable as `SCORES` says."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Score]:
        self.prompts = list(dict.fromkeys(prompts))
        asked = zip(prompts, completions, strict=True)
        return [Score(SCORES[prompt.rpartition("\n")[2], label]) for prompt, label in asked]


class Head(Judge):
    """A classifier, whose labels are those of the data and one more; it reads texts as they are."""

    labels = ("law", "other", "sport")

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Score]:
        self.prompts = list(dict.fromkeys(prompts))
        asked = zip(prompts, completions, strict=True)
        return [Score((math.fsum(SCORES.get((prompt, label), (-9.0,))),)) for prompt, label in asked]


def labelled(directory: Path, rows: Sequence[tuple[str, str, str | None]]) -> Dataset:
    ids = [f"row-{number}" for number in range(len(rows))]
    splits, texts, labels = zip(*rows, strict=True)
    columns = {"id": ids, "group": ids, "split": splits, "text": texts, "label": labels}
    root = directory / "data"
    root.mkdir(exist_ok=True)
    pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).write_parquet(root / "shard-00000.parquet")
    return Dataset.at(root, "classification")


def measure(tmp_path: Path, data: Dataset, **options: object) -> tuple[dict[str, float], Judge]:
    ctx, judge = make_context(tmp_path), Judge()
    classification(judge, data, ctx, **options)
    return {name: metric.value for name, metric in ctx.metrics.items()}, judge


def test_the_most_probable_label_is_compared_with_the_right_one(tmp_path):
    found, judge = measure(tmp_path, labelled(tmp_path, ROWS))
    # sport, law, sport: F1 of law 2/3, of sport 2/3. Always law: 2 of 3 right, F1 of law 0.8, of sport 0.
    assert found == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": 2 / 3, "majority_accuracy": 2 / 3, "majority_macro_f1": 0.4}
    )
    assert judge.prompts[0] == "Label the text with one of: law, sport.\n\na goal"


def test_a_classifier_chooses_among_its_own_labels_and_reads_the_text_alone(tmp_path):
    data, ctx, head = labelled(tmp_path, ROWS), make_context(tmp_path), Head()
    classification(head, data, ctx, prompt="Topic?\n{text}")
    assert head.prompts == ["a goal", "a vote", "a match"]
    # As above: sport, law, sport.
    assert {name: metric.value for name, metric in ctx.metrics.items()} == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": 2 / 3, "majority_accuracy": 2 / 3, "majority_macro_f1": 0.4}
    )


def test_a_classifier_of_other_labels_is_refused(tmp_path):
    data = labelled(tmp_path, [*ROWS, ("test", "a plea", "crime")])
    with pytest.raises(InputError, match="the model has no label 'crime', which examples have; it has law, other, spo"):
        classification(Head(), data, make_context(tmp_path))


def test_labels_compare_by_the_mean_of_their_tokens_where_asked(tmp_path):
    found, _ = measure(tmp_path, labelled(tmp_path, ROWS), per_token=True)
    # "a vote" is sport by the mean (-1.0 to -1.2), law by the sum.
    assert found["accuracy"] == pytest.approx(1 / 3)


def test_examples_with_prompts_are_asked_by_those(pairs, tmp_path):
    data = pairs(*((text, label) for split, text, label in ROWS if split == "test"))
    found, judge = measure(tmp_path, data)
    assert found == pytest.approx({"accuracy": 2 / 3, "macro_f1": 2 / 3})
    assert judge.prompts == ["a goal", "a vote", "a match"]
    with pytest.raises(InputError, match="prompts already"):
        measure(tmp_path, data, prompt="{text}")


def test_tables_say_which_labels_are_taken_for_which(tmp_path):
    measure(tmp_path, labelled(tmp_path, ROWS), prompt="Topic?\n{text}")
    tables = {path.stem: pl.read_parquet(path) for path in (tmp_path / "notes" / "tables").iterdir()}
    assert tables["classes"].rows() == [("law", 1.0, 0.5, pytest.approx(2 / 3), 2, 1), ("sport", 0.5, 1, 2 / 3, 1, 2)]
    assert tables["confusion"].to_dict(as_series=False) == {
        "label": ["law", "sport"],
        "chosen: law": [1, 0],
        "chosen: sport": [1, 1],
    }
    assert tables["generations"]["output"].to_list() == ["sport", "law", "sport"]
    assert tables["generations"]["correct"].to_list() == [1.0, 1.0, 0.0]
    assert tables["generations"]["prompt"][0] == "Topic?\na goal"


def test_rows_without_a_label_are_not_measured(tmp_path):
    rows = [*ROWS, ("test", "unlabelled", None), ("train", "unlabelled", None)]
    found, judge = measure(tmp_path, labelled(tmp_path, rows))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert len(judge.prompts) == 3


@pytest.mark.parametrize(
    "labels", [["one"] * 3, [str(number) for number in range(101)]], ids=["one label", "free text"]
)
def test_data_that_is_not_of_classes_is_refused(tmp_path, labels):
    with pytest.raises(InputError, match="different values"):
        measure(tmp_path, labelled(tmp_path, [("test", "a goal", label) for label in labels]))


def test_a_label_without_tokens_is_refused(tmp_path):
    judge = Judge()
    judge.score = lambda prompts, completions: [Score(()) for _ in prompts]
    with pytest.raises(InputError, match="no token of the label 'law'"):
        classification(judge, labelled(tmp_path, ROWS), make_context(tmp_path))


@pytest.mark.parametrize("prompt", ["no field", "{text", "{text} {other}", "{text!r}", "{text:>9}", "{}", "{text.x}"])
def test_templates_that_cannot_be_filled_are_refused(prompt):
    with pytest.raises(InputError, match="prompt: "):
        check_template(prompt)


@given(st.text())
def test_what_is_filled_in_is_not_read_as_a_template(text):
    check_template("{{x}} {text} {labels}")
    assert fill("{{x}} {text} {labels}", text=text, labels="a") == f"{{x}} {text} a"


@given(choices)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs):
    truth, chosen = zip(*pairs, strict=True)
    classes = class_scores(truth, chosen)
    for each in classes:
        right = sum(one == two == each.label for one, two in pairs)
        precision = right / each.predicted if each.predicted else 0.0
        recall = right / each.support if each.support else 0.0
        assert (each.precision, each.recall) == (precision, recall)
        mean = 2 * precision * recall / (precision + recall) if right else 0.0
        assert math.isclose(each.f1, mean)
    assert sum(each.support for each in classes) == len(pairs)
    assert 0 <= macro_f1(classes) <= 1
    assert (macro_f1(classes) == 1) == (truth == chosen)


@given(choices, st.randoms())
def test_macro_f1_depends_on_neither_order_nor_names(pairs, random):
    names = dict(zip("abcd", random.sample("wxyz", 4), strict=True))
    renamed = [(names[one], names[two]) for one, two in random.sample(pairs, len(pairs))]
    one, two = (macro_f1(class_scores(*zip(*table, strict=True))) for table in (pairs, renamed))
    assert one == pytest.approx(two)


@given(choices)
def test_the_confusion_matrix_counts_every_example_once(pairs):
    truth, chosen = zip(*pairs, strict=True)
    table = confusion(truth, chosen)
    for label in {*truth, *chosen}:
        row = table["label"].index(label)
        assert sum(column[row] for name, column in table.items() if name != "label") == truth.count(label)
        assert sum(table[f"chosen: {label}"]) == chosen.count(label)
