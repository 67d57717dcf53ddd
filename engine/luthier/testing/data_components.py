"""Call one data component on a few rows, in this process, where a debugger reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.artifacts import Dataset, Frame
from luthier.components import Component
from luthier.context import Context
from luthier.core_stages import STAGES
from luthier.registering import read_component
from luthier.testing.contexts import make_context

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ComponentRun:
    """What a data component gave.

    Attributes:
        frame: its rows.
        context: the context that it was called with: `metrics`, `quarantined`, `notes`.
    """

    frame: Frame
    context: Context

    @property
    def texts(self) -> list[str]:
        """The rows' texts."""
        texts: list[str] = self.frame["text"].to_list()
        return texts


def run_component(
    function: Callable[..., Any],
    rows: Frame | Sequence[str] | Sequence[Mapping[str, Any]] = (),
    *,
    directory: Path,
    seed: int = 0,
    **configuration: Any,
) -> ComponentRun:
    """Run a source, cleaner, bias filter or formatter on rows, held to the same contract as in a run.

    Args:
        function: the component.
        rows: texts, or rows with a `text` and any further columns; `id`, `source` and `group` are filled in.
        directory: where the context's directories and the dataset are made.
        seed: of the context.
        configuration: as a recipe has it, and checked in the same way.

    Raises:
        PluginError: if the component breaks the contract.
        ConfigurationError: if the configuration is refused.
    """
    import polars as pl

    from luthier import frames
    from luthier.shards import write_shard

    component = _component(function)
    context = make_context(directory, seed=seed, name=component.name)
    keywords = component.arguments(configuration)
    source = component.stage.name == "source"
    frame = pl.DataFrame() if source else _documents(rows)
    form = component.form(configuration) or "documents"
    if "frame" in component.inputs:
        return ComponentRun(frames.run_frame_component(component, keywords, frame, context, form)[0], context)
    data = Dataset.at(directory / "data", "documents")
    data.path.mkdir()
    write_shard(frame, data.path / "shard-00000.parquet")
    inputs = {"data": data, "ctx": context}
    given = component.function(*(inputs[name] for name in component.inputs), **keywords)
    origin = component.name
    completed = frames.SourceRows(origin, origin)
    parts = [completed.complete(part) if source else part for part in frames.as_frames(given, component)]
    result = pl.concat([frames.check_form(part, form, origin) for part in parts]) if parts else frame.clear()
    frames.check_rows(result.lazy(), form, origin)
    return ComponentRun(result, context)


def arguments(function: Callable[..., Any], /, **configuration: Any) -> dict[str, Any]:
    """The keyword arguments that a step with this configuration calls a component with, of whatever stage.

    Defaults are filled in, and keys of shared settings are put together: what a test needs that calls a tuner
    itself, `lora(model, data, context, **arguments(lora, rank=4, max_steps=8))`.

    Raises:
        ConfigurationError: if the configuration is refused.
    """
    return Component(STAGES[0], function, (), "", "", "").arguments(configuration)


def _component(function: Callable[..., Any]) -> Component:
    """The function as a component of the stage that its signature suggests."""
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    declared = getattr(function, "__luthier__", None)
    name = "source" if not {"frame", "data"} & set(names) else "format" if declared and declared.gives else "clean"
    stage = next(stage for stage in STAGES if stage.name == name)
    return read_component(function, stage, distribution="", version="", plugin="")


def _documents(rows: Frame | Sequence[str] | Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    import polars as pl

    from luthier import frames

    if not isinstance(rows, pl.DataFrame):
        records = [{"text": row} if isinstance(row, str) else dict(row) for row in rows]
        rows = pl.DataFrame(records, infer_schema_length=None, schema=None if records else {"text": pl.String})
    return frames.SourceRows("test", "the test's rows").complete(rows)
