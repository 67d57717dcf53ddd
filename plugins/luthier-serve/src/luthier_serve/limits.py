"""What a server allows: every number that a client gives has a bound."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STOPS = 4
MAX_STOP_LENGTH = 256
MAX_TOP_LOGPROBS = 20
MAX_MESSAGES = 1024
MAX_SCHEMA_BYTES = 65536
MAX_TEMPERATURE = 2.0
MAX_TOP_K = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Attributes:
        parallel: completions of a model that are written side by side, each of which has a key-value cache.
        queue: completions that may wait for one of these places.
        body_bytes: of a request.
        prompt_tokens: of a prompt; None for as many as the model reads.
        new_tokens: of a completion, at most and where a client does not say.
        choices: of a request.
        seconds: from a request's arrival to its end.
        drain_seconds: for which requests may go on when the server is told to end.
    """

    parallel: int = 8
    queue: int = 32
    body_bytes: int = 1 << 20
    prompt_tokens: int | None = None
    new_tokens: int = 1024
    choices: int = 8
    seconds: float = 300.0
    drain_seconds: float = 20.0
