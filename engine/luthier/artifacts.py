"""The typed artifacts on disk: what steps take and give, and the manifest that identifies each.

An artifact is a directory. Its identity is the SHA-256 of its manifest: kind, form and, for each file
in order of its relative path, size and SHA-256. Nothing about times, hosts or runs is part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypedDict

from luthier.errors import InputError, LuthierError

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray
    from polars import DataFrame, LazyFrame

    Frame = DataFrame
else:

    class Frame:
        """A `polars.DataFrame`, by a name that imports nothing: for annotations."""


Kind = Literal["dataset", "model", "onnx", "report"]
MANIFEST_VERSION = 1

DATASET_FORMS: Mapping[str, Mapping[str, str]] = {
    "documents": {"id": "String", "text": "String", "source": "String", "group": "String"},
    "language-modelling": {"id": "String", "group": "String", "split": "String", "text": "String"},
    "prompt-completion": {
        "id": "String",
        "group": "String",
        "split": "String",
        "prompt": "String",
        "completion": "String",
    },
    "chat": {"id": "String", "group": "String", "split": "String", "messages": "List"},
    "preference": {
        "id": "String",
        "group": "String",
        "split": "String",
        "prompt": "String",
        "chosen": "String",
        "rejected": "String",
    },
    "unpaired-preference": {
        "id": "String",
        "group": "String",
        "split": "String",
        "prompt": "String",
        "completion": "String",
        "label": "Boolean",
    },
    "classification": {"id": "String", "group": "String", "split": "String", "text": "String", "label": "String"},
}
"""The columns, with their polars types, that a dataset of each form has at the least."""

SPLITS = ("train", "valid", "test")

ROW_FILES = (".jsonl", ".parquet", ".csv")
"""The forms of a user's files of rows, by their suffix."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: its path relative to the artifact, in POSIX form."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an artifact is made of."""

    kind: Kind
    form: str
    files: tuple[FileEntry, ...]

    def to_json(self) -> str:
        """The canonical text: the same artifact always gives the same bytes."""
        record = {"version": MANIFEST_VERSION, **asdict(self)}
        return json.dumps(record, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest.

        Raises:
            InputError: if a newer Luthier wrote it.
        """
        record = json.loads(text)
        if record["version"] > MANIFEST_VERSION:
            raise InputError(
                f"an artifact's manifest has version {record['version']}; this Luthier reads up to {MANIFEST_VERSION}",
                "Upgrade: pip install --upgrade luthier",
            )
        return cls(record["kind"], record["form"], tuple(FileEntry(**entry) for entry in record["files"]))

    @property
    def hash(self) -> str:
        """The artifact's identity: the hex SHA-256 of its canonical manifest."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(entry.size for entry in self.files)


def hash_file(path: Path) -> str:
    """The hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(directory: Path) -> list[Path]:
    """All regular files below `directory`, sorted by their relative POSIX path."""
    found = [Path(root, name) for root, _, names in os.walk(directory) for name in names]
    return sorted(found, key=lambda path: path.relative_to(directory).as_posix())


def build_manifest(directory: Path, kind: Kind, form: str) -> Manifest:
    """Hash every file below `directory`, or the one file that it is."""
    found = {path.relative_to(directory).as_posix(): path for path in list_files(directory)}
    if directory.is_file():
        found = {directory.name: directory}
    files = tuple(FileEntry(name, path.stat().st_size, hash_file(path)) for name, path in found.items())
    return Manifest(kind, form, files)


@dataclass(frozen=True)
class Artifact:
    """A directory in the store. `hash` is its identity, empty for one that is not stored."""

    path: Path
    form: str
    hash: str = ""
    kind: ClassVar[Kind]

    @classmethod
    def at(cls, path: Path, form: str, hash: str = "") -> Self:
        """The artifact at `path`."""
        return cls(path, form, hash)

    def identity(self) -> str:
        """Its hash; of one that is not stored, computed from its files as the store would, which reads all of them."""
        return self.hash or build_manifest(self.path, self.kind, self.form).hash


@dataclass(frozen=True)
class Dataset(Artifact):
    """Parquet shards, `shard-00000.parquet` and on, of one schema."""

    kind: ClassVar[Kind] = "dataset"

    @property
    def shards(self) -> list[Path]:
        """The shards in order."""
        return sorted(self.path.glob("shard-*.parquet"))

    def scan(self) -> LazyFrame:
        """All rows, lazily."""
        import polars as pl

        return pl.scan_parquet(self.shards)

    def frame(self, split: str | None = None) -> Frame:
        """All rows in memory, or those of one split (`train`, `valid`, `test`)."""
        import polars as pl

        rows = self.scan()
        return (rows if split is None else rows.filter(pl.col("split") == split)).collect()

    def frames(self) -> Iterator[Frame]:
        """The shards' rows, one frame each."""
        import polars as pl

        for shard in self.shards:
            yield pl.read_parquet(shard)


@dataclass(frozen=True)
class Model(Artifact):
    """A Hugging Face model directory: config, safetensors, tokenizer, chat template.

    `form` is the kind of model: `causal-lm`, `seq2seq-lm`, `encoder`, `sequence-classifier`.
    """

    kind: ClassVar[Kind] = "model"


@dataclass(frozen=True)
class OnnxModel(Artifact):
    """An exported model: a directory with ONNX graphs, or another file, and what its runtime needs.

    `form` names the layout: `genai`, `decoder`, `encoder-decoder`, `sequence-classifier`, `gguf`.
    """

    kind: ClassVar[Kind] = "onnx"


@dataclass(frozen=True)
class Report(Artifact):
    """What a step measured: metrics, tables, figures, samples and quarantined records."""

    kind: ClassVar[Kind] = "report"

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics' values by name."""
        return {entry["name"]: entry["value"] for entry in self.metric_records()}

    def metric_records(self) -> list[dict[str, Any]]:
        """The metrics as recorded, with `per_example`, `weights` and `aggregate`."""
        path = self.path / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def tables(self) -> dict[str, Path]:
        """The tables (Parquet files) by name."""
        return {path.stem: path for path in sorted(self.path.glob("tables/*.parquet"))}

    def table(self, name: str) -> Frame:
        """One table."""
        import polars as pl

        tables = self.tables()
        if name not in tables:
            raise LuthierError(f"no table {name!r} in this report", f"It has: {', '.join(tables) or 'none'}")
        return pl.read_parquet(tables[name])

    def figures(self) -> dict[str, Path]:
        """The figures (SVG files) by name."""
        return {path.stem: path for path in sorted(self.path.glob("figures/*.svg"))}

    def samples(self) -> dict[str, list[dict[str, str]]]:
        """Some of the rows that a data step `dropped` or `changed`: their `id`, `before` and, if changed, `after`.

        Of a component that redacts there are changed rows only, without their `before`.
        """
        path = self.path / "outcome.json"
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        samples: dict[str, list[dict[str, str]]] = record.get("samples", {})
        return samples

    def quarantined(self) -> Iterator[dict[str, str | None]]:
        """The records that a step set aside, one at a time: `where`, `reason`, `id` (where it had one), `record`."""
        path = self.path / "quarantine.jsonl"
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


ARTIFACTS: Mapping[Kind, type[Artifact]] = {kind.kind: kind for kind in (Dataset, Model, OnnxModel, Report)}


@dataclass(frozen=True)
class Score:
    """How a model sees one completion: natural-log probabilities of its tokens, in order.

    The completion's tokens include the end-of-turn tokens that the model is to learn; none is left out.
    """

    log_probabilities: tuple[float, ...]


class Message(TypedDict):
    """One message of a conversation; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


Prompt = str | Sequence[Message]
"""What a model is asked: a user's plain text, or a conversation that the model is to answer."""


class Generator(Protocol):
    """A loaded model: what a runtime returns and validators talk to.

    The generator renders prompts with the model's own chat template (a model without one continues a text
    as it stands, and answers no conversation), the same in tuning, validation and serving.
    """

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int = 128, stop: Sequence[str] = ()) -> list[str]:
        """The greedy completion of each prompt, without special tokens, cut before the first `stop`."""
        ...

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Score]:
        """Teacher-forced log-probabilities of each completion after its prompt.

        A `prompt` of None in a language-modelling setting is the empty string: the completion is then
        scored as plain text, without template, its first token left out.
        """
        ...

    def logits(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Iterable[NDArray[float32]]:
        """For each pair the logits that predict the completion's tokens: (tokens, vocabulary), float32.

        Of plain text that is longer than the model's context they may end where that does; `score` goes on.
        """
        ...


class Classifier(Generator, Protocol):
    """A loaded model that chooses one of its labels for a text: the Generator of the form `sequence-classifier`.

    It reads texts as they are. What it generates is the most probable label; the score of a label is one
    log-probability; the logits, (1, labels), are those of all labels.
    """

    labels: Sequence[str]
    """In the order of the logits. What has none, or no such attribute, is no classifier."""
