"""What a dataset promises whatever component made it: ids that are unique and kept, one split a group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import luthier
from luthier.errors import LuthierError, PluginError

PLUGIN = '''
import polars as pl
from luthier import component, hookimpl

SHARD = 4096
SIDES = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("train")).otherwise(pl.lit("test"))


def examples(frame, split):
    return frame.select("id", "group", split.alias("split"), "text")


def renumber(frame: pl.DataFrame) -> pl.DataFrame:
    """Number the rows anew."""
    return frame.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("id"))


def twice(data) -> pl.DataFrame:
    """Give every row twice."""
    return pl.concat([data.frame(), data.frame()])


def grouped(frame: pl.DataFrame, *, groups: int = 3) -> pl.DataFrame:
    """Put the rows into a few groups."""
    return frame.with_columns((pl.int_range(pl.len()) % groups).cast(pl.String).alias("group"))


@component(gives="language-modelling")
def numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """Make examples whose ids count from 0 in every shard."""
    return examples(renumber(frame), pl.lit("train"))


@component(gives="language-modelling")
def alternate(frame: pl.DataFrame) -> pl.DataFrame:
    """Split row by row, whatever the group."""
    return examples(frame, SIDES)


@component(gives="language-modelling")
def by_shard(frame: pl.DataFrame) -> pl.DataFrame:
    """Test on the shard that is not full."""
    return examples(frame, pl.lit("train" if frame.height == SHARD else "test"))


@component(gives="language-modelling")
def alternate_all(data) -> pl.DataFrame:
    """Split row by row, whatever the group, with all rows at hand."""
    return examples(data.frame(), SIDES)


@component(gives="language-modelling", needs={"frame": {"language-modelling"}})
def tidy(frame: pl.DataFrame) -> pl.DataFrame:
    """Clean examples."""
    return frame.with_columns(pl.col("text").str.strip_chars())


@hookimpl
def luthier_cleaners():
    return [renumber, twice, grouped, tidy]


@hookimpl
def luthier_bias_filters():
    return [renumber]


@hookimpl
def luthier_formatters():
    return [numbered, alternate, by_shard, alternate_all]
'''

Refused = Callable[..., PluginError]


@pytest.fixture
def refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run steps on so many words, and give the error that names the plugin's file."""
    (project / "plugins.d" / "careless.py").write_text(PLUGIN)
    monkeypatch.setenv("LUTHIER_PLUGINS", "toys,careless")

    def call(*steps: str, count: int = 100) -> LuthierError:
        listed = "".join(f"  - {step}\n" for step in (f"source: words\n    count: {count}", *steps))
        (project / "recipe.yaml").write_text(f"luthier: 1\nname: careless\nsteps:\n{listed}")
        with pytest.raises(LuthierError) as caught:
            luthier.run(project / "recipe.yaml", display=False, jobs=1)
        assert caught.value.exit_code == 3
        assert "careless.py:" in caught.value.message
        return caught.value

    return call


@pytest.mark.parametrize("stage", ["clean", "bias"])
def test_a_frame_component_that_renames_ids_is_refused(refused, stage):
    error = refused(f"{stage}: renumber")
    assert "renumber (" in error.message
    assert "gave rows of new ids: '0', and 99 more ids" in error.message
    assert "keeps `id`" in error.remedy


def test_ids_that_repeat_across_shards_are_refused(refused):
    error = refused("format: numbered", count=5000)
    assert "numbered (" in error.message
    assert "gave rows of the same id: '0', and 903 more ids" in error.message


def test_of_a_fused_pass_the_part_that_made_the_ids_is_named(refused):
    error = refused("clean: capitals", "format: numbered", "clean: tidy", count=5000)
    assert "numbered (" in error.message


def test_ids_that_a_data_component_repeats_are_refused(refused):
    error = refused("clean: twice")
    assert "twice (" in error.message
    assert "and 99 more ids" in error.message


@pytest.mark.parametrize("formatter", ["alternate", "alternate-all"])
def test_a_group_in_train_and_test_is_refused(refused, formatter):
    error = refused("clean: grouped", f"format: {formatter}")
    assert f"{formatter.replace('-', '_')} (" in error.message
    assert "put the group '0' into test and train, and 2 more groups" in error.message


def test_a_group_that_shards_put_into_different_splits_is_refused(refused):
    error = refused("clean: grouped", "format: by-shard", "clean: tidy", count=5000)
    assert "by_shard (" in error.message
    assert "put the group '0' into test and train" in error.message


def test_documents_may_have_a_split_of_their_own(project, run):
    plugin = project / "plugins.d" / "toys.py"
    mark = 'frame.with_columns(pl.col("id").alias("split"), pl.lit("all").alias("group"))'
    text = plugin.read_text().replace(
        '    return frame.with_columns(pl.col("text").str.replace_all',
        f'    frame = {mark}\n    return frame.with_columns(pl.col("text").str.replace_all',
    )
    plugin.write_text(text)
    assert run(until="capitals").dataset("capitals").frame()["split"].n_unique() > 1
