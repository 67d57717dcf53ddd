"""The stages of the core, as a table: what each offers its components, and the kind of artifact that it gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from luthier.artifacts import Kind

CHAMPION = "champion"
"""The model in use under a recipe's name; also what names it wherever a run or a model is named."""

SUBJECTS = ("candidate", "base", "reference", CHAMPION)
"""What validators measure: the newest model, what the architecture gave, the last one before export or quantizing, and
the one in use, where there is one."""

REFERENCE: Final = "reference"
"""The subject that a model is held against for what it lost; also the key by which a recipe names another one."""

NAMED_INPUTS: Mapping[str, Kind] = {"teacher": "model", "other": "dataset"}
"""Inputs that are not the newest artifact of their kind: a recipe names the step that gives each, under a key of
the input's name. A component that asks for one cannot do without."""


@dataclass(frozen=True)
class Stage:
    """A row in the table of stages; plugins add theirs through `luthier_stages`.

    Attributes:
        name: its key in recipes (`clean`); empty for one that recipes do not list as steps.
        hook: the registration hook (`luthier_cleaners`).
        gives: the kind of artifact that a step of it makes: `dataset`, `model`, `onnx` or `report`; `same`, of the
            core's alone, for that of the `model` or `onnx` that the component takes; None for one that recipes do
            not list.
        title: what it is, for people.
        needs: inputs that a component must ask for.
        one_of: inputs of which it must ask for exactly one.
        optional: inputs that it may ask for.
        contract: the version of what the engine promises it; part of every step's key.
        key: the reserved key of other stages' steps that names a component of it (`runtime`), where recipes do not
            list it.
        lossy: what the first such step was given, of those that a model came through, is its `reference`.
    """

    name: str
    hook: str
    gives: Kind | Literal["same"] | None
    title: str
    needs: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    contract: int = 1
    key: str = ""
    lossy: bool = False

    @property
    def label(self) -> str:
        """What it is called: its key in recipes, as a step or in one."""
        return self.name or self.key

    @property
    def inputs(self) -> tuple[str, ...]:
        """All inputs that it offers."""
        return (*self.needs, *self.one_of, *self.optional)

    def check_inputs(self, inputs: Collection[str]) -> str:
        """What is wrong with a component that asks for `inputs`; empty if nothing is."""
        unknown = [name for name in inputs if name not in self.inputs]
        if unknown:
            return f"asks for {', '.join(map(repr, unknown))}, which this stage does not offer"
        missing = [name for name in self.needs if name not in inputs]
        if missing:
            return f"does not ask for {', '.join(map(repr, missing))}"
        chosen = [name for name in self.one_of if name in inputs]
        if self.one_of and len(chosen) != 1:
            return f"must ask for exactly one of {', '.join(map(repr, self.one_of))}"
        if "other" in inputs and "data" not in inputs:
            return "asks for 'other', a second dataset, and not for 'data', the first"
        return ""

    @property
    def given(self) -> str:
        """What a component of it gives, for people."""
        if self.gives == "same":
            return " or ".join(self.one_of)
        return self.gives or {"runtime": "a Generator", "executor": "messages"}[self.key]

    @property
    def offer(self) -> str:
        """What the stage offers, for messages and the reference."""
        parts = list(self.needs)
        if self.one_of:
            parts.append(" or ".join(self.one_of))
        parts += [f"{name} (optional)" for name in self.optional]
        return ", ".join(parts)


STAGES: tuple[Stage, ...] = (
    Stage("source", "luthier_sources", "dataset", "Sources: read raw documents", optional=("ctx",)),
    Stage("clean", "luthier_cleaners", "dataset", "Cleaners", one_of=("frame", "data"), optional=("other", "ctx")),
    Stage(
        "bias",
        "luthier_bias_filters",
        "dataset",
        "Bias filters and audits",
        one_of=("frame", "data"),
        optional=("ctx",),
    ),
    Stage(
        "format",
        "luthier_formatters",
        "dataset",
        "Formatters: text to examples",
        one_of=("frame", "data"),
        optional=("ctx",),
    ),
    Stage("architecture", "luthier_architectures", "model", "Architectures: make a model", optional=("data", "ctx")),
    Stage("tune", "luthier_tuners", "model", "Tuners", needs=("model",), optional=("data", "teacher", "ctx")),
    Stage("prune", "luthier_pruners", "model", "Pruners: a smaller model", needs=("model",), optional=("data", "ctx")),
    Stage(
        "export",
        "luthier_exporters",
        "onnx",
        "Exporters: model to ONNX, or to GGUF",
        needs=("model",),
        optional=("data", "ctx"),
    ),
    Stage(
        "quantize",
        "luthier_quantizers",
        "same",
        "Quantizers: fewer bits a weight",
        one_of=("model", "onnx"),
        optional=("data", "ctx"),
        lossy=True,
    ),
    Stage(
        "validate",
        "luthier_validators",
        "report",
        "Validators",
        needs=("subject",),
        optional=("reference", "data", "ctx"),
    ),
    Stage(
        "",
        "luthier_runtimes",
        None,
        "Runtimes: load a model",
        one_of=("model", "onnx"),
        optional=("ctx",),
        key="runtime",
    ),
    Stage("", "luthier_executors", None, "Executors: where processes run", needs=("job",), key="executor"),
)
"""The core's stages. Those that plugins add are in `Registry.stages`, after these."""

DEFAULT_RUNTIMES: Mapping[str, str] = {"model": "transformers", "onnx": "onnxruntime-genai"}
"""The runtime that loads each kind where a recipe's `runtime` does not name another."""

DEFAULT_EXECUTOR = "local"
"""What starts the processes of a step where a recipe's `executor` does not say otherwise."""
