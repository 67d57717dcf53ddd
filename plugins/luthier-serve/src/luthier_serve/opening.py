"""Who may ask a server, from what the user typed: closed where nothing was said."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from luthier import InputError
from luthier_serve.guard import LOOPBACK_NAMES, Access, host_of, is_loopback

SHORTEST_TOKEN = 16
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not chosen


def access_for(
    host: str, token_file: Path | None, *, no_token: bool, names: Sequence[str], origins: Sequence[str]
) -> tuple[Access, str]:
    """The access, and the token if a new one was made.

    Raises:
        InputError: for what would leave a server open, or nobody could use.
    """
    loopback = is_loopback(host)
    if no_token and token_file:
        raise InputError("--no-token and --token-file contradict each other", "Give one of them.")
    if no_token and not loopback:
        raise InputError(
            f"--no-token would let everybody use the models who reaches {host}", "Leave it out, or listen at 127.0.0.1."
        )
    if host in EVERYWHERE and not names:
        raise InputError(
            "a server that listens everywhere answers for the names that it is told",
            "Name those that clients use: --allow-host models.example.org",
        )
    # An address that stands for all of a machine's is none that clients can ask.
    asked_by = [_checked(name) for name in (names if host in EVERYWHERE else (host, *names))]
    hosts = {*asked_by, *(LOOPBACK_NAMES if loopback or host in EVERYWHERE else ())}
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
            raise InputError(f"{origin!r} is no origin", "Write scheme, name and port: https://app.example.org")
    new = "" if no_token or token_file else secrets.token_urlsafe(32)
    token = _read(token_file) if token_file else new
    return Access(token, _in_address(asked_by[0]), hosts, tuple(origins)), new


def _checked(host: str) -> str:
    found = host_of(_in_address(host))
    if not found or found != host.lower().strip("[]"):
        raise InputError(f"{host!r} is no host's name", "Write it without scheme, port and path: models.example.org")
    return found


def _in_address(host: str) -> str:
    """A host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _read(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"the token cannot be read from {path}: {error}", "Write one line of text into it.") from error
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{path} holds no token of at least {SHORTEST_TOKEN} printable characters",
            'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
        )
    return token
