"""The validator `bits-per-byte`, with what a compressor and an n-gram model reach on the same bytes."""

from __future__ import annotations

import lzma
import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from luthier import InputError
from luthier_validate.examples import Examples, select_examples
from luthier_validate.likelihood import byte_sizes, negative_log_likelihoods, record_bits_per_byte
from luthier_validate.ngrams import ByteNgrams

if TYPE_CHECKING:
    from luthier import Context, Dataset, Generator

ORDER = 5
_LARGEST_DICTIONARY = 1 << 26
_SMALLEST_DICTIONARY = 1 << 12


def measure_bits_per_byte(
    subject: Generator,
    data: Dataset,
    ctx: Context,
    *,
    split: str,
    max_examples: int | None,
    baselines: Collection[str],
) -> None:
    """Record `bits_per_byte`, those of the baselines, and the tables; see the component `bits-per-byte`.

    Raises:
        InputError: if the split is empty or has no bytes, or a baseline has nothing to learn from.
        PluginError: if the subject gives log-probabilities that are none.
    """
    examples = select_examples(data, split, max_examples)
    sizes = byte_sizes(examples.completions)
    learned = _training_texts(data) if baselines else []
    nats = negative_log_likelihoods(subject.score(examples.prompts, examples.completions))
    per_byte = record_bits_per_byte(ctx, "bits_per_byte", nats, sizes)
    rows = [_row("model", math.fsum(nats), sum(sizes))]
    columns: dict[str, Sequence[Any]] = {"id": examples.ids, "bytes": sizes, "nats": nats, "bits_per_byte": per_byte}
    texts = _encoded(examples)
    # A completion's end is scored too, so a baseline must also say where it ends.
    ends = data.form == "prompt-completion"
    if "ngram" in baselines:
        found = ByteNgrams(learned, order=ORDER, ends=ends).nats(texts)
        columns["ngram_bits_per_byte"] = record_bits_per_byte(ctx, "ngram_bits_per_byte", found, sizes)
        rows.append(_row(f"baseline: {ORDER}-gram of bytes", math.fsum(found), sum(sizes)))
    if "xz" in baselines:
        bits = 8 * added_bytes(learned, texts, ends=ends)
        ctx.metric("xz_bits_per_byte", bits / sum(sizes))
        rows.append(_row("baseline: xz -9e", bits * math.log(2), sum(sizes)))
    ctx.table("bits_per_byte", pl.DataFrame(rows))
    ctx.table("bits_per_byte_examples", pl.DataFrame(columns))


def added_bytes(learned: Sequence[bytes], texts: Sequence[bytes], *, ends: bool) -> int:
    """By how many bytes `texts` lengthen what `xz -9e` makes of `learned`.

    Args:
        learned: what comes first.
        texts: what follows.
        ends: whether a line break follows each text, so that one can tell them apart.
    """
    end = b"\n" if ends else b""
    total = sum(len(text) + len(end) for text in (*learned, *texts))
    # More than the text itself would change nothing but take ten times as much memory.
    dictionary = min(max(_SMALLEST_DICTIONARY, 1 << total.bit_length()), _LARGEST_DICTIONARY)
    before = _compressed_size((text + end for text in learned), dictionary)
    return _compressed_size((text + end for text in (*learned, *texts)), dictionary) - before


def _compressed_size(parts: Iterable[bytes], dictionary: int) -> int:
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
    compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[lzma2])
    return sum(len(compressor.compress(part)) for part in parts) + len(compressor.flush())


def _training_texts(data: Dataset) -> list[bytes]:
    texts = _encoded(select_examples(data, "train", None))
    if not any(texts):
        raise InputError(
            "the training examples are all empty, so the baselines have nothing to learn from",
            "Look at the data that the `format` step gave, or leave `baselines` empty.",
        )
    return texts


def _encoded(examples: Examples) -> list[bytes]:
    return [text.encode("utf-8", "surrogatepass") for text in examples.completions]


def _row(what: str, nats: float, size: int) -> dict[str, Any]:
    return {"what": what, "bits_per_byte": nats / math.log(2) / size, "nats": nats, "bytes": size}
