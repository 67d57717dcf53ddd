"""A column that a configuration names but the data does not have, or not as text, is the user's error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from luthier import Context, Dataset, InputError
from luthier_text import cleaners, formatters
from luthier_text.formatters import Split

MakeDataset = Callable[..., Dataset]
Named = Callable[[str], dict[str, Any]]

COMPONENTS: dict[str, tuple[Callable[..., Any], Named]] = {
    "unicode: columns": (cleaners.unicode, lambda name: {"columns": ["text", name]}),
    "whitespace: columns": (cleaners.whitespace, lambda name: {"columns": ["text", name]}),
    "length: column": (cleaners.length, lambda name: {"column": name}),
    "normalise: columns": (cleaners.normalise, lambda name: {"columns": [name]}),
    "exact-duplicates: columns": (cleaners.exact_duplicates, lambda name: {"columns": ["text", name]}),
    "near-duplicates: column": (cleaners.near_duplicates, lambda name: {"column": name}),
    "summarization: prompt": (formatters.summarization, lambda name: {"prompt": f"{{{name}}}: {{text}}"}),
    "summarization: target": (formatters.summarization, lambda name: {"target": name}),
    "summarization: split.by": (formatters.summarization, lambda name: {"split": Split(by=name)}),
    "language-modelling: column": (formatters.language_modelling, lambda name: {"column": name}),
    "language-modelling: split.by": (formatters.language_modelling, lambda name: {"split": Split(by=name)}),
}
CLEANERS = [where for where, (component, _) in COMPONENTS.items() if component.__module__ == cleaners.__name__]


def call(where: str, name: str, data: Dataset, ctx: Context) -> pl.DataFrame:
    """What a component makes of the data, with `name` as the column that it works on."""
    component, configuration = COMPONENTS[where]
    if component.__module__ == formatters.__name__:
        return pl.concat(list(component(data, ctx, **configuration(name))))
    if component in (cleaners.exact_duplicates, cleaners.near_duplicates):
        return pl.concat(list(component(data, **configuration(name))))
    return pl.DataFrame(component(data.frame(), **configuration(name)))


@pytest.fixture
def documents(make_dataset: MakeDataset) -> Dataset:
    return make_dataset(
        {
            "text": ["one text", "another"],
            "summary": ["one", "other"],
            "number": [1, 2],
            "tags": [["a"], ["b"]],
            "nothing": pl.Series([None, None], dtype=pl.Null),
        },
        cuts=[1],
    )


@pytest.mark.parametrize("where", COMPONENTS)
def test_a_missing_column_is_an_error_that_helps(where: str, documents: Dataset, ctx: Context) -> None:
    with pytest.raises(InputError) as error:
        call(where, "sumary", documents, ctx)
    assert error.value.message == f"{where}: the data has no column 'sumary'; did you mean 'summary'?"
    assert error.value.remedy == "It has: text, summary, number, tags, nothing, id, source, group."


@pytest.mark.parametrize("where", COMPONENTS)
def test_a_column_of_lists_is_an_error(where: str, documents: Dataset, ctx: Context) -> None:
    with pytest.raises(InputError) as error:
        call(where, "tags", documents, ctx)
    assert error.value.message.startswith(f"{where}: the column 'tags' is List(String), not ")
    assert "text, summary, " in error.value.remedy
    assert "tags" not in error.value.remedy


@pytest.mark.parametrize("where", CLEANERS)
def test_cleaners_work_on_text(where: str, documents: Dataset, ctx: Context) -> None:
    with pytest.raises(InputError) as error:
        call(where, "number", documents, ctx)
    assert error.value.message == f"{where}: the column 'number' is Int64, not text"
    assert error.value.remedy == "These are: text, summary, nothing, id, source, group."


@pytest.mark.parametrize("where", CLEANERS)
def test_a_column_without_values_is_text_without_values(where: str, documents: Dataset, ctx: Context) -> None:
    kept = {"length: column": 0, "near-duplicates: column": 1}.get(where, 2)
    assert call(where, "nothing", documents, ctx)["nothing"].to_list() == [None] * kept


def test_exact_duplicates_may_compare_anything_as_it_is(make_dataset: MakeDataset) -> None:
    data = make_dataset({"text": ["a"] * 3, "number": [1, 2, 1], "tags": [["a"], ["a"], ["a"]]})
    kept = cleaners.exact_duplicates(data, columns=["number", "tags"], ignore_case=False, ignore_whitespace=False)
    assert pl.concat(list(kept))["number"].to_list() == [1, 2]


@pytest.mark.parametrize(("component", "option"), [("unicode", "--columns"), ("near-duplicates", "--column")])
def test_the_command_line_says_so_in_one_line_with_exit_code_1(component: str, option: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "a text", "summary": "its summary"}))
    command = [sys.executable, "-c", "from luthier.cli import main; main()", "plugins", "run", component]
    files = ["--input", str(rows), "--output", str(tmp_path / "out.jsonl")]
    done = subprocess.run([*command, *files, option, "sumary"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the data has no column 'sumary'; did you mean 'summary'?" in done.stderr
    assert "Traceback" not in done.stderr
