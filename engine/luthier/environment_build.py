"""Build an environment of its own: resolve with uv, link what the main environment has, install the rest.

The main environment's distributions are offered to the resolver as wheels that hold their metadata
alone, and their versions as preferences. So what is editable, local or on no index (luthier itself in a
checkout, a torch of version `2.13.0+cpu`) resolves to what is already there, and only what really
conflicts is fetched.
"""

from __future__ import annotations

import ast
import datetime
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import Distribution
from pathlib import Path

from filelock import FileLock, Timeout

from luthier import environments
from luthier.distributions import lies_outside, main_distributions, normalized, record_hash, requirement_name, requires
from luthier.environments import EXTRA, MANIFEST, Environment, Manifest, site_of
from luthier.errors import InputError
from luthier.files import disk_errors, measure, place_copy, remove_tree, write_atomically

CORE = "luthier"
LAST_LINES = 25
REMEDY = "Or set LUTHIER_CACHE to another directory."
CHECK = """
import importlib, importlib.util, sys
from luthier.plugins import load_plugins
loaded = load_plugins()
broken = [each for each in loaded.broken if each.distribution == sys.argv[1]]
if broken:
    sys.exit("\\n".join(each.traceback or each.error for each in broken))
if all(each.distribution != sys.argv[1] for each in loaded.plugins):
    sys.exit(f"{sys.argv[1]} gives no plugin there")
for name in sys.argv[2:]:
    if importlib.util.find_spec(name):
        importlib.import_module(name)
"""
"""Run in the new environment: the plugin loads there, and so does what it names for the environment."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Where distributions come from, besides what pip's configuration says.

    Attributes:
        find_links: directories or pages of wheels.
        no_index: look nowhere else.
    """

    find_links: tuple[str, ...] = ()
    no_index: bool = False

    @property
    def options(self) -> list[str]:
        """As pip and uv take them."""
        places = [option for place in self.find_links for option in ("--find-links", place)]
        return [*places, *(["--no-index"] if self.no_index else [])]


def build(distribution: str, *, sources: Sources = Sources(), rebuild: bool = False, tell: Tell = print) -> Environment:
    """Build the environment of a plugin, or give the sound one that is there.

    Two builds of one environment at once are one: the second waits. A killed one leaves a directory
    without a manifest, which is never used and which the next build removes.

    Args:
        distribution: an installed plugin.
        sources: where to look for what must be installed.
        rebuild: build it although it is sound.
        tell: hears what is done, a line each.

    Raises:
        InputError: if it is not installed, cannot be resolved or installed, or does not load there.
    """
    main = main_distributions()
    if normalized(distribution) not in main:
        raise InputError(f"{distribution} is not installed in the main environment", f"pip install {distribution}")
    name = normalized(distribution)
    place = environments.root()
    with disk_errors(place, REMEDY):
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place / f"{name}-{_short(sys.prefix)}.lock", tell):
            found = None if rebuild else environments.current(name)
            if found:
                tell(f"{name}: built already, {found.path}")
                return found
            return _Build(name, main, sources, tell).run(place)


@contextmanager
def _alone(path: Path, tell: Tell) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell("waiting for another build of it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Build:
    def __init__(self, name: str, main: Mapping[str, Distribution], sources: Sources, tell: Tell) -> None:
        self._name = name
        self._main = main
        self._sources = sources
        self._tell = tell
        declared = environments.requirements_under_extra(name)
        self._requirements = [f"{name}[{EXTRA}]" if declared else name, CORE]
        self._to_import = [requirement_name(line).replace("-", "_") for line in declared]

    def run(self, place: Path) -> Environment:
        with tempfile.TemporaryDirectory(prefix="luthier-") as scratch:
            pins = self._resolve(Path(scratch))
        linked = {name: there for name, version in pins.items() if (there := self._linkable(name, version))}
        rest = {name: version for name, version in pins.items() if name not in linked}
        manifest = Manifest(
            plugin=self._name,
            requirements=self._requirements,
            declared=requires(self._name),
            interpreter=environments.interpreter(),
            parent=sys.prefix,
            linked={name: [there.version, record_hash(there)] for name, there in linked.items()},
        )
        path = place / f"{self._name}-{_short(manifest.to_json() + repr(sorted(rest.items())))}"
        if path.exists():
            self._tell(f"removing {path}, which {'is' if (path / MANIFEST).exists() else 'was left unfinished'} there")
            remove(Environment(path, None))
        environment = Environment(path, None)
        venv.create(path, symlinks=os.name != "nt", with_pip=False)
        self._tell(f"linking {len(linked)} distributions from {sys.prefix}")
        for there in linked.values():
            _link(there, environment)
        if rest:
            self._tell(f"installing {', '.join(f'{name} {version}' for name, version in rest.items())}")
            self._install(environment, rest)
        self._tell("checking that the plugin loads there")
        self._check(environment)
        return self._finish(environment, manifest, rest)

    def _resolve(self, scratch: Path) -> dict[str, str]:
        """The versions of the closure, by normalized name."""
        self._tell(f"resolving {' and '.join(self._requirements)}")
        stubs = scratch / "main"
        stubs.mkdir()
        for there in self._main.values():
            _write_stub(there, stubs)
        wanted, locked = scratch / "requirements.in", scratch / "locked.txt"
        wanted.write_text("\n".join(self._requirements) + "\n", encoding="utf-8")
        # An output file that exists is read as preferences.
        preferences = [f"{name}=={there.version}" for name, there in self._main.items()]
        locked.write_text("\n".join(preferences) + "\n", encoding="utf-8")
        files = [str(wanted), "--output-file", str(locked), "--find-links", str(stubs)]
        self._uv(
            ["pip", "compile", *files, "--python", sys.executable, "--no-annotate", "--no-header"],
            f"the environment of {self._name} cannot be resolved",
        )
        lines = [line.split(";")[0].strip() for line in locked.read_text(encoding="utf-8").splitlines()]
        pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
        return {normalized(name): version for name, version in pairs}

    def _linkable(self, name: str, version: str) -> Distribution | None:
        there = self._main.get(name)
        return there if there and there.version == version and record_hash(there) else None

    def _install(self, environment: Environment, rest: Mapping[str, str]) -> None:
        pins = [f"{name}=={version}" for name, version in rest.items()]
        # Links into uv's cache would let an edit here spoil every environment that is built after it.
        self._uv(
            ["pip", "install", "--no-deps", "--link-mode", "copy", "--python", str(environment.python), *pins],
            f"the environment of {self._name} cannot be installed",
        )

    def _uv(self, arguments: Sequence[str], failure: str) -> None:
        from uv import find_uv_bin

        options, variables = index_settings(self._sources)
        call(
            [find_uv_bin(), *arguments, "--no-progress", "--color", "never", *options],
            failure,
            "Its requirements and where pip looks decide; `--find-links DIR` adds a directory of wheels.",
            variables,
        )

    def _check(self, environment: Environment) -> None:
        call(
            [str(environment.python), "-I", "-c", CHECK, self._name, *self._to_import],
            f"{self._name} does not load in its environment, {environment.path}",
            f"Its requirements under the extra `{EXTRA}` do not fit together: tell its author.",
        )

    def _finish(self, environment: Environment, manifest: Manifest, rest: Mapping[str, str]) -> Environment:
        there = environment.distributions()
        whole = replace(
            manifest,
            installed={name: [there[name].version, record_hash(there[name])] for name in rest},
            own_bytes=sum(
                measure(Path(str(file.locate())))
                for name in rest
                for file in there[name].files or ()
                if Path(str(file.locate())).is_file()
            ),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        write_atomically(environment.path / MANIFEST, whole.to_json(), environment.path)
        return Environment(environment.path, whole)


def _write_stub(distribution: Distribution, directory: Path) -> None:
    """A wheel that holds a distribution's metadata alone: enough to resolve with, never installed."""
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    if not metadata:
        return
    name = normalized(distribution.metadata["Name"]).replace("-", "_")
    inside = f"{name}-{distribution.version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{distribution.version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{inside}/METADATA", metadata)
        wheel.writestr(f"{inside}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{inside}/RECORD", "")


def _link(distribution: Distribution, environment: Environment) -> None:
    """Hard-link a distribution's files, or copy them where links cannot be made; commands are left out."""
    start = Path(str(distribution.locate_file("")))
    main = {site_of(Path(sys.prefix), scheme): scheme for scheme in ("purelib", "platlib")}
    target = site_of(environment.path, main.get(start, "purelib"))
    for file in distribution.files or ():
        source = Path(str(file.locate()))
        if lies_outside(file) or not source.is_file():
            continue
        destination = target / file
        destination.parent.mkdir(parents=True, exist_ok=True)
        place_copy(source, destination, link=True)


def index_settings(sources: Sources) -> tuple[list[str], dict[str, str]]:
    """Where uv looks: what pip's configuration says, unless uv's own says something; as options and variables.

    pip takes the best version of all indexes alike, so uv is told to.
    """
    options = sources.options
    if any(name.startswith("UV_") and ("INDEX" in name or "FIND_LINKS" in name) for name in os.environ):
        return options, {}
    settings = _pip_settings()
    if sources.no_index or settings.get("no-index", ["false"])[-1].lower() in ("1", "true", "yes", "on"):
        settings = {name: value for name, value in settings.items() if not name.endswith("index-url")}
        options += [] if sources.no_index else ["--no-index"]
    options += ["--index-strategy", "unsafe-best-match"]
    for name, option in _UV_OPTIONS.items():
        options += [part for value in settings.get(name, []) for part in (option, value)]
    variables = {
        variable: settings[name][-1]
        for name, variable in _UV_VARIABLES.items()
        if name in settings and variable not in os.environ
    }
    return options, variables


_UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
_UV_VARIABLES = {"cert": "SSL_CERT_FILE", "client-cert": "SSL_CLIENT_CERT", "proxy": "ALL_PROXY"}


def _pip_settings() -> dict[str, list[str]]:
    """What `pip config list` says for installing: option to values; environment variables win over files."""
    if importlib.util.find_spec("pip") is None:
        return {}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, errors="replace"
    )
    ranks = ("global", "install", ":env:")
    found: dict[str, tuple[int, list[str]]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section not in ranks:
            continue
        rank = ranks.index(section)
        if rank >= found.get(option, (-1, []))[0]:
            found[option] = (rank, str(ast.literal_eval(value)).split())
    return {option: values for option, (_, values) in found.items()}


def remove(environment: Environment) -> None:
    """Remove an environment: first its manifest, so that what a kill leaves is no environment."""
    (environment.path / MANIFEST).unlink(missing_ok=True)
    remove_tree(environment.path)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def call(command: Sequence[str], failure: str, remedy: str, variables: Mapping[str, str] | None = None) -> None:
    """Run a tool to its end, quietly and without input.

    Args:
        command: the program and its arguments.
        failure: what it means to the user if it fails.
        remedy: what to do then.
        variables: environment variables besides those that are set.

    Raises:
        InputError: if it fails; its own last words are in the message.
    """
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(variables or {})},
    )
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = "\n".join(f"    {line}" for line in lines[-LAST_LINES:])
        raise InputError(f"{failure}:\n{said}", remedy)
