"""The requests of OpenAI's API that are understood, and their bounds. What is not understood is refused, by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from luthier_serve.limits import (
    MAX_MESSAGES,
    MAX_STOP_LENGTH,
    MAX_STOPS,
    MAX_TEMPERATURE,
    MAX_TOP_K,
    MAX_TOP_LOGPROBS,
)

Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Name = Annotated[str, Field(max_length=256)]


NOT_UNDERSTOOD = "not_understood"
"""The type of the error of a field that is known, and asks for what is not done here."""


def _listed(given: object) -> object:
    """One text as a list of it: a union's errors would be told of each of its types."""
    return [given] if isinstance(given, str) else given


def _neutral(given: Any) -> Any:
    """Let what clients send by default through, which asks for nothing."""
    if given in (None, 0, "", [], {}):
        return given
    raise PydanticCustomError(NOT_UNDERSTOOD, "it asks for something")


Unused = Annotated[Any, AfterValidator(_neutral)]
"""A field whose meaning is not understood: it may stand there with its default."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


def _parts(given: object) -> object:
    return [{"type": "text", "text": given}] if isinstance(given, str) else given


class ChatMessage(_Strict):
    """A message; `developer` is what `system` was called before."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[TextPart], BeforeValidator(_parts)]
    name: Name | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(part.text for part in self.content)


class StreamOptions(_Strict):
    """Of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(_Strict):
    """The schema that a completion keeps to, always strictly."""

    name: Name
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(_Strict):
    """What a completion has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given with the type json_schema, and only then")
        return self


class _Completing(_Strict):
    """What both routes take. The fields without effect are those that clients send by default or for OpenAI's books."""

    model: Name
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOP_K)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Annotated[list[Stop] | None, BeforeValidator(_listed), Field(max_length=MAX_STOPS)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    frequency_penalty: Unused = None
    presence_penalty: Unused = None
    logit_bias: Unused = None
    user: Name | None = None

    @model_validator(mode="after")
    def _streams_where_it_has_options(self) -> _Completing:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are given with stream: true, and only then")
        return self


class ChatRequest(_Completing):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Unused = None
    modalities: list[Literal["text"]] | None = None
    metadata: dict[str, str] | None = None
    store: Unused = None
    service_tier: Name | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _has_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs are given with logprobs: true, and only then")
        return self


class CompletionRequest(_Completing):
    """`POST /v1/completions`: the prompt is continued as it stands, without the model's chat template."""

    prompt: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: Unused = None
    suffix: Unused = None
    best_of: Literal[1] | None = None
