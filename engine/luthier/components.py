"""A component is a function: the inputs that it asks for, and the configuration its signature declares.

Positional parameters are inputs, matched by name. Keyword-only parameters are the configuration:
their annotations are evaluated one by one and validated by pydantic, strictly, as JSON (`True` is not
a float, `"0.2"` is not a number, unknown keys are errors).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from luthier import shared_settings
from luthier.core_stages import NAMED_INPUTS, REFERENCE, Stage
from luthier.declaration import Declaration, Location
from luthier.distributions import is_distribution, requirement_name, requirements_under
from luthier.errors import InputError, PluginError
from luthier.schema_walk import keys_at
from luthier.suggest import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel

    from luthier.artifacts import Kind

Answer = TypeVar("Answer")

RESERVED_KEYS = ("id", "from", *NAMED_INPUTS, "gate", REFERENCE, "runtime", "executor", "subjects", "environment")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: the path of its key and what is wrong."""

    key: tuple[str | int, ...]
    message: str
    unknown: bool = False


class ConfigurationError(PluginError):
    """A configuration that a component's signature refuses; the user's error, so exit code 1."""

    exit_code = 1

    def __init__(self, component: Component, problems: list[Problem]) -> None:
        where = "; ".join(": ".join(filter(None, (".".join(map(str, p.key)), p.message))) for p in problems)
        meant = {str(problem.key[-1]): component.key_meant(problem.key) for problem in problems if problem.unknown}
        several = len(set(meant.values())) > 1
        told = [f"{key}: {what}" if several else what for key, what in meant.items()]
        remedy = "; ".join(dict.fromkeys(told))
        super().__init__(f"{component}: {where}", remedy)
        self.problems = problems


@dataclass(frozen=True)
class Component:
    """A registered function: what a recipe names.

    Attributes:
        stage: the stage that it belongs to.
        function: the function itself.
        inputs: the names that it asks for, in order.
        distribution, version: where it came from; a local file's distribution is its path.
        plugin: the name of the plugin (entry point, or stem of the local file).
    """

    stage: Stage
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    distribution: str
    version: str
    plugin: str

    def __str__(self) -> str:
        return f"{self.stage.label}:{self.name}"

    @property
    def name(self) -> str:
        """The function's name, with hyphens."""
        return component_name(self.function)

    @property
    def kind(self) -> Kind | None:
        """The kind of artifact that it gives; None where recipes do not list its stage."""
        gives = self.stage.gives
        if gives != "same":
            return gives
        return "model" if "model" in self.inputs else "onnx"

    @property
    def doc(self) -> str:
        """The docstring, dedented, with the help of shared settings among its `Args`."""
        return shared_settings.with_help(inspect.getdoc(self.function) or "", keyword_only(self.function))

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]

    @property
    def declared(self) -> Declaration:
        """What `@component` said of it."""
        declaration = getattr(self.function, "__luthier__", None)
        return declaration if isinstance(declaration, Declaration) else Declaration()

    def accepts(self, name: str, form: str) -> bool:
        """Whether it takes an input of this form; a form that is not known is not held against it."""
        forms = self.declared.needs.get(name, frozenset())
        return not forms or not form or form in forms

    def require_extra(self) -> None:
        """Refuse where a requirement of the extra that it declares is not in the main environment.

        Raises:
            InputError: with the command that installs it.
        """
        extra = self.declared.extra
        needed = requirements_under(extra, self.distribution) if extra else []
        missing = [name for name in sorted(set(map(requirement_name, needed))) if not is_distribution(name)]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise InputError(
                f"{self} needs {', '.join(missing)}, which {verb} not installed",
                f"pip install '{self.distribution}[{extra}]'",
            )

    def needs_executor(self, config: Mapping[str, Any]) -> bool:
        """Whether its work is done by several processes, which somebody must start."""
        return self.declared.processes and config.get("processes", 1) > 1

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The configuration's parameters as the signature has them, annotations not evaluated."""
        return configuration_parameters(self.function)

    def keys(self, path: Sequence[str | int] = ()) -> list[str]:
        """The keys that the configuration may have at `path`; none where that is no mapping of fixed keys."""
        return keys_at(self.model.model_json_schema(), path)

    def key_meant(self, key: Sequence[str | int], reserved: Collection[str] = ()) -> str:
        """What to write for a key that it does not have: the nearest one, or all that there are.

        Args:
            key: its path.
            reserved: keys that recipes have beside the component's.
        """
        own = self.keys(key[:-1])
        return did_you_mean(str(key[-1]), [*own, *reserved]) or f"{self} has {', '.join(own) or 'no keys'}"

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model of the configuration.

        Raises:
            PluginError: if an annotation cannot be evaluated or is no type that pydantic knows.
        """
        from pydantic import ConfigDict, create_model

        definitions: dict[str, Any] = {}
        for parameter in self.parameters:
            definitions[parameter.name] = (
                self._annotation(parameter),
                parameter.default if parameter.default is not parameter.empty else ...,
            )
        config = ConfigDict(
            extra="forbid", strict=True, validate_default=True, arbitrary_types_allowed=False, protected_namespaces=()
        )
        try:
            return create_model(self.function.__name__, __config__=config, **definitions)
        except Exception as error:
            # Besides pydantic's own, a constraint that does not go with its type, or a name that is not there.
            told = (str(error) or type(error).__name__).splitlines()[0]
            raise PluginError(
                f"{describe(self.function)}: a parameter has a type that cannot be configured: {told}",
                "Use plain types, Literal, Annotated constraints, lists, or dataclasses of these.",
            ) from error

    def _annotation(self, parameter: inspect.Parameter) -> Any:
        annotation = parameter.annotation
        if not isinstance(annotation, str):
            return annotation
        namespace = getattr(self.function, "__globals__", {})
        try:
            for shared in keyword_only(self.function):
                if parameter.name != shared.name and parameter in shared_settings.expand(shared):
                    return shared_settings.field_types(shared.default)[parameter.name]
            # As typing.get_type_hints does, but only for this parameter: inputs may name heavy types.
            return eval(annotation, namespace)  # noqa: S307 - the plugin's own source text
        except Exception as error:
            raise PluginError(
                f"{describe(self.function)}: the annotation of {parameter.name!r} ({annotation}) cannot be evaluated: "
                f"{error}",
                "Import what it names at the module's top, outside `if TYPE_CHECKING`.",
            ) from error

    def configure(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a configuration and fill in defaults; gives a value for each key.

        Raises:
            ConfigurationError: with every problem at once.
            PluginError: if a default is refused by its own type.
        """
        from pydantic import ValidationError

        try:
            instance = self.model.model_validate_json(json.dumps(configuration))
        except ValidationError as error:
            problems = [
                Problem(
                    tuple(detail["loc"]),
                    _explain(detail),
                    detail["type"] == "extra_forbidden" or detail["type"] == "unexpected_keyword_argument",
                )
                for detail in error.errors()
            ]
            self._blame_defaults(problems, configuration)
            raise ConfigurationError(self, problems) from None
        values = {name: getattr(instance, name) for name in type(instance).model_fields}
        if self.declared.check:
            try:
                self.declared.check(**values)
            except InputError as error:
                message = f"{error.message} ({error.remedy})" if error.remedy else error.message
                raise ConfigurationError(self, [Problem((), message)]) from None
            except Exception as error:
                message = f"{self}: its `check` failed: {type(error).__name__}: {error}"
                raise PluginError(message, f"See {describe(self.declared.check)}.") from error
        return values

    def form(self, configuration: Mapping[str, Any], given: Sequence[str] = ()) -> str | None:
        """The form of what it gives with this configuration; None where it declares none, or it cannot be known.

        Args:
            configuration: what the user gave.
            given: the forms of its inputs.

        Raises:
            ConfigurationError: if the configuration is refused.
            PluginError: if what it declares fails.
        """
        gives = self.declared.gives
        if gives is None or isinstance(gives, str):
            return gives
        if isinstance(gives, Mapping):
            return next((gives[form] for form in given if form in gives), None)
        return self._ask("gives", gives, configuration)

    def metrics(self, configuration: Mapping[str, Any]) -> Collection[str] | None:
        """The names of the metrics that it records with this configuration; None where it does not say.

        Raises:
            ConfigurationError: if the configuration is refused.
            PluginError: if what it declares fails.
        """
        metrics = self.declared.metrics
        return self._ask("metrics", metrics, configuration) if callable(metrics) else metrics

    def traits(self, configuration: Mapping[str, Any]) -> Mapping[str, Any]:
        """What it tells of its result with this configuration, besides the form.

        Raises:
            ConfigurationError: if the configuration is refused.
            PluginError: if what it declares fails.
        """
        traits = self.declared.traits
        return self._ask("traits", traits, configuration) if traits else {}

    def _ask(self, what: str, declared: Callable[..., Answer], configuration: Mapping[str, Any]) -> Answer:
        """Call what was declared as a function of the configuration."""
        values = self.configure(configuration)
        try:
            return declared(**values)
        except Exception as error:
            message = f"{self}: its `{what}` failed: {type(error).__name__}: {error}"
            raise PluginError(message, f"See {describe(declared)}.") from error

    def arguments(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments to call the function with; `configure` says what it raises."""
        return shared_settings.gather(keyword_only(self.function), self.configure(configuration))

    def _blame_defaults(self, problems: Sequence[Problem], configuration: Mapping[str, Any]) -> None:
        """Raise a PluginError if something is wrong that the user did not give."""
        defaults = {each.name for each in self.parameters if each.default is not each.empty}
        wrong = [each for each in problems if each.key and each.key[0] in defaults - configuration.keys()]
        if wrong:
            told = "; ".join(
                f"the default of {each.key[0]!r} is refused by its own type: {each.message}" for each in wrong
            )
            raise PluginError(f"{describe(self.function)}: {told}", "Mend the default or the annotation.")

    def canonical(self, configuration: Mapping[str, Any], locate: Callable[[str], str] = str) -> dict[str, Any]:
        """The configuration with defaults, as JSON values, locations through `locate`: what a step's key covers."""
        return {name: plain_value(value, locate) for name, value in self.configure(configuration).items()}


def plain_value(value: Any, locate: Callable[[str], str] = str) -> Any:  # noqa: PLR0911 - one return a type
    """A configuration's value as JSON: dataclasses as dicts, sets sorted, locations through `locate`.

    Sets have no order of their own, and the order that they iterate in changes from process to process.
    """
    from pydantic import BaseModel
    from pydantic_core import to_jsonable_python

    if isinstance(value, Location):
        return locate(str(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain_value(getattr(value, item.name), locate) for item in fields(value)}
    if isinstance(value, BaseModel):
        return {name: plain_value(getattr(value, name), locate) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(to_jsonable_python(key)): plain_value(inner, locate) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner, locate) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((plain_value(inner, locate) for inner in value), key=json.dumps)
    return to_jsonable_python(value)


def _explain(detail: Mapping[str, Any]) -> str:
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return "unknown key"
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "required, but missing"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, not {detail['input']!r}"


def component_name(function: Callable[..., Any]) -> str:
    """The name that recipes use: the function's, with hyphens."""
    return getattr(function, "__name__", "").replace("_", "-")


def describe(function: Callable[..., Any]) -> str:
    """A function for an error message: its name, file and line."""
    code = getattr(function, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{getattr(function, '__qualname__', function)!s}{where}"


def keyword_only(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The keyword-only parameters of a component, as it is written."""
    return [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]


def configuration_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The keys that a component's step may have: its keyword-only parameters, shared settings field by field."""
    return [each for parameter in keyword_only(function) for each in shared_settings.expand(parameter)]
