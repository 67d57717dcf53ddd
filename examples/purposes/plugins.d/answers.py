"""Answers of which one is better, made of what a description and its summary say: for the recipe `preferences`.

Nobody was asked. The summary that the package's maintainer wrote is taken to be preferred to the description's first
sentence, which says much the same at greater length.
"""

import polars as pl

from luthier import Context, hookimpl

SENTENCE_END = r"[.!?](?:\s|$)|\n\s*\n"


def first_sentence(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the column `first_sentence`: how the text begins, up to the end of a sentence or paragraph."""
    text = pl.col("text").str.strip_chars()
    lead = text.str.replace(rf"(?s)^(.*?(?:{SENTENCE_END})).*$", "${1}").str.strip_chars()
    return frame.with_columns(lead.str.replace_all(r"\s+", " ").alias("first_sentence"))


def judged(frame: pl.DataFrame, ctx: Context) -> pl.DataFrame:
    """Add `answer`, the summary or the first sentence by chance, and `liked`, whether it is the summary."""
    liked = pl.Series("liked", [ctx.rng(row_id).random() < 0.5 for row_id in frame["id"]], dtype=pl.Boolean)
    answer = pl.when("liked").then("summary").otherwise("first_sentence").alias("answer")
    return frame.with_columns(liked).with_columns(answer)


@hookimpl
def luthier_cleaners():
    return [first_sentence, judged]
