"""What `templates` adds, to what, and from what it takes its randomness."""

from __future__ import annotations

import polars as pl
import pytest
from luthier_synthesize import Template, check_templates, templates

from luthier import InputError
from luthier.testing import make_context

POLITE = Template("Please: {prompt}")
BOTH = Template("{prompt} ({completion})", "{completion}!")
SHORT = Template("Briefly: {prompt}")


@pytest.fixture
def pairs() -> pl.DataFrame:
    rows = range(40)
    return pl.DataFrame(
        {
            "id": [f"r{row}" for row in rows],
            "group": [f"g{row // 2}" for row in rows],
            "split": ["test" if row // 2 % 4 == 0 else "train" for row in rows],
            "prompt": [f"question {row}, {{completion}}" for row in rows],
            "completion": [f"answer {row}" for row in rows],
            "page": list(rows),
        }
    )


def added(result: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    return result.join(pairs, on="id", how="anti", maintain_order="left")


def test_originals_stay_and_only_training_pairs_get_variants(pairs, tmp_path):
    context = make_context(tmp_path)
    result = templates(pairs, context, templates=[POLITE, SHORT], variants=1)
    assert result.join(pairs, on="id", how="semi", maintain_order="left").equals(pairs)
    new = added(result, pairs)
    assert new.height == pairs.filter(split="train").height
    assert new["split"].unique().to_list() == ["train"]
    assert context.metrics["variants"].value == new.height


def test_a_variant_is_filled_in_one_pass_and_keeps_the_other_columns(pairs, tmp_path):
    new = added(templates(pairs, make_context(tmp_path), templates=[BOTH], variants=1), pairs)
    first = new.row(0, named=True)
    assert first["prompt"] == "question 2, {completion} (answer 2)"
    assert (first["id"], first["group"], first["completion"], first["page"]) == ("r2~1", "g1", "answer 2!", 2)


def test_the_variants_of_a_row_depend_on_the_seed_and_its_id_alone(pairs, tmp_path):
    options = {"templates": [POLITE, BOTH, SHORT], "variants": 2}
    whole = templates(pairs, make_context(tmp_path), **options)
    parts = [templates(part, make_context(tmp_path), **options) for part in (pairs[:13], pairs[13:])]
    assert whole.equals(pl.concat(parts))
    assert whole.sort("id").equals(templates(pairs[::-1], make_context(tmp_path), **options).sort("id"))
    assert not whole.equals(templates(pairs, make_context(tmp_path, seed=1), **options))


@pytest.mark.parametrize(
    ("wrong", "variants", "message"),
    [
        ([Template()], 1, "changes nothing"),
        ([POLITE, Template("Hello")], 1, "prompt of template 2"),
        ([POLITE], 2, "2 variants of 1 templates"),
    ],
)
def test_templates_that_would_spoil_the_data_are_refused(wrong, variants, message):
    with pytest.raises(InputError, match=message):
        check_templates(templates=wrong, variants=variants)
