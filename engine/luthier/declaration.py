"""What a plugin's author writes beside a function: `@component`, for what the signature cannot say, and `Location`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from luthier.searchable import Search

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


Function = TypeVar("Function", bound=Callable[..., Any])


class Location(str):
    """The type of a parameter that names content: a path, `hf:`, `wheel:` or an fsspec URI.

    Relative paths start at the recipe. In a step's key the content's hash stands for it.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(min_length=1, strict=True))


@dataclass(frozen=True)
class Known:
    """What is known of an input while planning.

    Attributes:
        form: its form, such as `causal-lm`.
        traits: what the steps that made it tell of it besides; see `component`. What is not known is not there or None.
    """

    form: str
    traits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    """What a signature cannot say; see `component`."""

    gives: str | Mapping[str, str] | Callable[..., str] | None = None
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fingerprint: Callable[..., str] | None = None
    files: Callable[..., Sequence[str]] | None = None
    check: Callable[..., None] | None = None
    check_inputs: Callable[..., None] | None = None
    traits: Callable[..., Mapping[str, Any]] | None = None
    check_device: Callable[[str], None] | None = None
    platform: bool = False
    search: Search | None = None
    processes: bool = False
    metrics: Collection[str] | Callable[..., Collection[str]] | None = None
    extra: str = ""
    streams: bool = False
    redacts: bool = False


def component(
    *,
    gives: str | Mapping[str, str] | Callable[..., str] | None = None,
    needs: Mapping[str, Collection[str]] | None = None,
    fingerprint: Callable[..., str] | None = None,
    files: Callable[..., Sequence[str]] | None = None,
    check: Callable[..., None] | None = None,
    check_inputs: Callable[..., None] | None = None,
    traits: Callable[..., Mapping[str, Any]] | None = None,
    check_device: Callable[[str], None] | None = None,
    platform: bool = False,
    search: Search | None = None,
    processes: bool = False,
    metrics: Collection[str] | Callable[..., Collection[str]] | None = None,
    extra: str = "",
    streams: bool = False,
    redacts: bool = False,
) -> Callable[[Function], Function]:
    """Declare of a component what its signature cannot say. Most components need no declaration.

    Args:
        gives: the form of the result (`prompt-completion`, `causal-lm`); without it a cleaner or tuner
            keeps the form of its input, and a source gives `documents`. Where it depends on the configuration, a
            function that is called with that and returns it; where it depends on the form of an input, a mapping
            from that: `{"causal-lm": "decoder"}`.
        needs: for an input, the forms that it takes: `{"data": {"prompt-completion"}}`.
        fingerprint: for a source that reads something other than locations: called with the
            configuration while planning, it returns a text that changes when the source would.
        files: for a source that reads some files of a directory: called with the configuration, it returns
            their patterns (`**/*.txt`), as `Path.glob` reads them from a location that is a directory. Other
            files there may change without the source being run again.
        check: called with the configuration while planning; it raises `InputError` where parameters that
            are right by themselves do not go together, which no type can say.
        check_inputs: called while planning with the configuration and, by its name (`data`, `model`, a validator's
            `subject`), a `Known` of each input that is an artifact; it raises `InputError` where what is right by
            itself does not go together.
        traits: called with the configuration; it returns what planning can know of the result besides its form, by
            names of your own, for the `check_inputs` of later steps. What takes an artifact of the same kind keeps
            its traits; one that is no longer known becomes None. Of the models that luthier-models makes anew:
            `model_type` and `architecture`, as transformers has them; `positions`; `tokenizer`, its kind;
            `chat_template`, whether there is one. Of a quantizer: `prepares`, where it rounds nothing itself, and
            those after the export lose less for it.
        check_device: for what computes on `ctx.device`: called with its name in the process that is to compute there,
            before the first step of a run for which the user named a device; it raises `InputError` where there is
            none of that name.
        platform: the result depends on the processor architecture or operating system.
        search: by what its results compare; with it, recipes may give lists of values for its parameters.
        processes: its parameter `processes` says by how many processes its work is done. It can be called in all of
            them at once, anywhere. What starts them is the executor that the recipe names for the step, or the
            default one; see the hook `luthier_executors`.
        metrics: the names of all metrics that it may record, or a function that is called with the configuration and
            returns them. With it, a gate on a metric that there will never be is refused while planning, not after
            the work.
        extra: of the plugin's distribution, whose requirements this component needs and others of the plugin do not.
            Where one is not installed, a plan with the component is refused with the command that installs it; their
            versions are in the component's keys.
        streams: of a runtime: what it returns also is a `luthier.Streaming`, so it can be served, and can sample.
        redacts: what it takes out of rows must be shown to nobody: the samples of its step are rows that it changed,
            as they are afterwards, and none that it kept or dropped.
    """

    def declare(function: Function) -> Function:
        forms = {name: frozenset(accepted) for name, accepted in (needs or {}).items()}
        function.__luthier__ = Declaration(  # type: ignore[attr-defined]
            gives,
            forms,
            fingerprint,
            files,
            check,
            check_inputs,
            traits,
            check_device,
            platform,
            search,
            processes,
            metrics,
            extra,
            streams,
            redacts,
        )
        return function

    return declare
