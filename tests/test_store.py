"""The store: what is visible is complete, whatever happens and whoever else is at work."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import InputError, PluginError, files
from luthier.artifacts import Artifact, Kind, build_manifest
from luthier.garbage import collect
from luthier.store import LINK_FROM, StepRecord, Store

KEY = "a" * 64
OTHER_KEY = "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def commit(store: Store, contents: dict[str, bytes], kind: Kind = "model", form: str = "causal-lm") -> Artifact:
    store.prepare()
    directory = store.work / files.unique_name()
    for name, content in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return store.commit(directory, kind, form)


def make_step(store: Store, key: str = KEY, content: bytes = b"weights") -> StepRecord:
    artifact = commit(store, {"model.safetensors": content})
    report = commit(store, {"metrics.json": b"[]"}, "report", "report")
    record = StepRecord(key, "tune", "lora", {"seed": 7}, artifact.hash, report.hash, 1.5, "2026-01-01T00:00:00Z", "h")
    store.record(record)
    return record


def write_run(store: Store, name: str, keys: list[str], started: str = "", **told: str) -> None:
    store.prepare()
    (store.runs / name).mkdir()
    text = json.dumps({"steps": [{"nodes": [{"key": key}]} for key in keys], "started": started, **told})
    (store.runs / name / "run.json").write_text(text)


# --- artifacts ----------------------------------------------------------------------------------------


def test_nothing_is_created_before_the_first_write(store: Store) -> None:
    assert store.step(KEY) is None
    assert store.get("0" * 64) is None
    assert list(store.objects()) == []
    assert list(store.steps()) == []
    assert set(store.usage().values()) == {(0, 0)}
    assert collect(store).objects == 0
    assert not store.root.exists()


def test_commit_moves_the_directory_and_gives_its_content_back(store: Store) -> None:
    artifact = commit(store, {"config.json": b"{}", "deep/er/weights": b"\0" * 10})
    assert store.get(artifact.hash) == artifact
    assert (artifact.path / "deep/er/weights").read_bytes() == b"\0" * 10
    assert artifact.kind == "model"
    assert artifact.form == "causal-lm"
    assert list(store.objects()) == [artifact.hash]
    assert build_manifest(artifact.path, "model", "causal-lm").hash == artifact.hash
    assert store.verify(artifact.hash)
    assert os.listdir(store.work) == []
    assert os.listdir(store.tmp) == []


def test_a_second_commit_of_the_same_content_is_dropped(store: Store) -> None:
    first = commit(store, {"a": b"1"})
    inode = (first.path / "a").stat().st_ino
    assert commit(store, {"a": b"1"}) == first
    assert (first.path / "a").stat().st_ino == inode
    assert os.listdir(store.work) == []


def test_files_of_artifacts_are_read_only(store: Store) -> None:
    assert (commit(store, {"a": b"1"}).path / "a").stat().st_mode & 0o222 == 0


def test_a_file_with_a_writable_link_elsewhere_is_parted_from_it(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("as it was")
    store.prepare()
    directory = store.work / "x"
    directory.mkdir()
    os.link(mine, directory / "a.txt")
    artifact = store.commit(directory, "model", "causal-lm")
    mine.write_text("changed!!")
    assert store.verify(artifact.hash)


@pytest.mark.parametrize("target", ["file", "nowhere", "."])
def test_links_are_refused(store: Store, target: str) -> None:
    store.prepare()
    directory = store.work / "x"
    directory.mkdir()
    (directory / "file").write_text("")
    (directory / "link").symlink_to(target)
    with pytest.raises(PluginError, match="link, which is no regular file"):
        store.commit(directory, "model", "causal-lm")
    assert list(store.objects()) == []


contents = st.dictionaries(
    st.from_regex(r"[a-c]{1,2}(/[d-f]{1,2}){0,2}", fullmatch=True), st.binary(max_size=8), min_size=1, max_size=5
).filter(lambda d: not any(other.startswith(f"{name}/") for name in d for other in d))


@settings(max_examples=12, deadline=None)
@given(contents=contents, order=st.randoms(use_true_random=False))
def test_the_hash_is_of_content_and_not_of_order_or_time(
    contents: dict[str, bytes], order: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("order")
    names = list(contents)
    order.shuffle(names)
    first = commit(Store(root / "one"), contents)
    store = Store(root / "two")
    store.prepare()
    directory = store.work / "x"
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(contents[name])
        os.utime(directory / name, (order.randrange(10**9), order.randrange(10**9)))
    assert store.commit(directory, "model", "causal-lm").hash == first.hash


@settings(max_examples=12, deadline=None)
@given(contents=contents, data=st.data())
def test_the_hash_changes_with_content_path_form_and_kind(
    contents: dict[str, bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store(tmp_path_factory.mktemp("change"))
    name = data.draw(st.sampled_from(sorted(contents)))
    renamed = {other if other != name else f"{name}z": content for other, content in contents.items()}
    hashes = [
        commit(store, contents).hash,
        commit(store, {**contents, name: contents[name] + b"!"}).hash,
        commit(store, renamed).hash,
        commit(store, {**contents, "added": b""}).hash,
        commit(store, contents, form="seq2seq-lm").hash,
        commit(store, contents, kind="onnx").hash,
    ]
    assert len(set(hashes)) == len(hashes)


# --- damage -------------------------------------------------------------------------------------------


def test_a_changed_byte_is_found_and_quarantined(store: Store) -> None:
    record = make_step(store)
    path = store.objects_directory / record.output / "content" / "model.safetensors"
    path.chmod(0o644)
    path.write_bytes(b"weighty")
    assert store.step(KEY) == record, "the cheap check looks at sizes"
    assert not store.verify(record.output)
    assert store.get(record.output) is None
    assert store.step(KEY) is None
    assert os.listdir(store.quarantine) == [f"{record.output}-0"]
    assert make_step(store) == record, "the same artifact can be made again"
    assert store.verify(record.output)


@pytest.mark.parametrize("damage", ["missing", "truncated", "added"])
def test_damaged_files(store: Store, damage: str) -> None:
    artifact = commit(store, {"a": b"1234", "b": b"5678"})
    path = artifact.path / "a"
    path.chmod(0o644)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(b"12")
    else:
        (artifact.path / "stray").write_bytes(b"")
    assert not store.verify(artifact.hash)
    assert store.get(artifact.hash) is None
    assert len(os.listdir(store.quarantine)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', '{"version": "x"}', None])
def test_a_damaged_manifest_is_quarantined(store: Store, text: str | None) -> None:
    artifact = commit(store, {"a": b"1"})
    manifest = artifact.path.parent / "manifest.json"
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    assert store.get(artifact.hash) is None
    assert os.listdir(store.quarantine) == [f"{artifact.hash}-0"]


def test_a_manifest_of_another_artifact_is_damage(store: Store) -> None:
    one, two = commit(store, {"a": b"1"}), commit(store, {"a": b"2"})
    shutil.copytree(one.path.parent, store.tmp / "copy")
    shutil.rmtree(two.path.parent)
    (store.tmp / "copy").rename(two.path.parent)
    assert store.get(two.hash) is None
    assert store.get(one.hash) == one


def test_the_same_artifact_can_be_quarantined_twice(store: Store) -> None:
    for _ in range(2):
        artifact = commit(store, {"a": b"1"})
        (artifact.path / "a").unlink()
        assert store.get(artifact.hash) is None
    assert sorted(os.listdir(store.quarantine)) == [f"{artifact.hash}-0", f"{artifact.hash}-1"]


@pytest.mark.parametrize("hash", ["", "../steps", "x" * 64, "A" * 64])
def test_what_is_no_hash_is_not_here(store: Store, hash: str) -> None:
    make_step(store)
    assert store.get(hash) is None
    assert not store.verify(hash)
    assert os.listdir(store.quarantine) == []


# --- steps --------------------------------------------------------------------------------------------


def test_a_step_is_found_again_with_all_that_was_recorded(store: Store) -> None:
    record = make_step(store)
    assert store.step(KEY) == record
    assert list(store.steps()) == [record]
    assert store.step(OTHER_KEY) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', '{"version": 1}', "\udcff"])
def test_a_record_that_cannot_be_read_is_a_miss(store: Store, text: str) -> None:
    record = make_step(store)
    (store.steps_directory / f"{KEY}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert store.step(KEY) is None
    assert list(store.steps()) == []
    store.record(record)
    assert store.step(KEY) == record


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 300))
def test_a_truncated_record_is_a_miss_or_whole(cut: int) -> None:
    text = StepRecord(KEY, "tune", "lora", {"x": [1, {"y": None}]}, "0" * 64).to_json()
    assert (StepRecord.from_json(text[:cut]) is None) == (cut < len(text))


def test_a_step_without_its_report_is_a_miss(store: Store) -> None:
    record = make_step(store)
    shutil.rmtree(store.objects_directory / record.report)
    assert store.step(KEY) is None


def test_newer_formats_are_refused_with_the_remedy(store: Store) -> None:
    record = make_step(store)
    path = store.steps_directory / f"{KEY}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(InputError, match=r"version 99.*\n.*pip install --upgrade luthier"):
        store.step(KEY)
    manifest = store.objects_directory / record.output / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 99}))
    with pytest.raises(InputError, match="version 99"):
        store.get(record.output)
    (store.root / "version").write_text("99")
    with pytest.raises(InputError, match="version 99"):
        Store(store.root)


# --- leases -------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from luthier.store import Store
with Store(Path(sys.argv[1])).lease(sys.argv[2]) as work:
    (work.checkpoint / "step").write_text("17")
    (work.output / "half").write_text("")
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(store: Store) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root), KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_and_is_told_once(store: Store) -> None:
    holder = start_holder(store)
    waits = []

    def on_wait() -> None:
        waits.append(holder.poll())
        assert holder.stdin is not None
        holder.stdin.close()

    with store.lease(KEY, on_wait) as work:
        assert holder.wait(10) == 0, "the other one had let go"
        assert os.listdir(work.output) == []
    assert waits == [None]


def test_a_killed_holder_leaves_its_checkpoint_and_not_its_lock(store: Store) -> None:
    holder = start_holder(store)
    holder.kill()
    holder.wait()
    with store.lease(KEY, lambda: pytest.fail("nobody holds it")) as work:
        assert (work.checkpoint / "step").read_text() == "17"
        assert os.listdir(work.output) == os.listdir(work.notes) == []
        assert len(os.listdir(work.path)) == 2, "the killed attempt is gone"


def fail_at(store: Store, key: str, step: str) -> None:
    """Work on a step up to a checkpoint, then fail."""

    def work() -> None:
        with store.lease(key) as work:
            (work.checkpoint / "step").write_text(step)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()


def test_success_discards_and_an_error_keeps_the_checkpoint(store: Store) -> None:
    fail_at(store, KEY, "3")
    with store.lease(KEY) as work:
        assert (work.checkpoint / "step").read_text() == "3"
        work.discard()
        assert not work.path.exists()
    with store.lease(KEY) as work:
        assert os.listdir(work.checkpoint) == []


def test_leases_of_different_steps_do_not_wait_for_each_other(store: Store) -> None:
    with store.lease(KEY), store.lease(OTHER_KEY, lambda: pytest.fail("waited")) as work:
        assert work.output.is_dir()


# --- crashes ------------------------------------------------------------------------------------------

COMMITTER = """
import random, sys
from pathlib import Path
from luthier import garbage
from luthier.store import Store, StepRecord
store = Store(Path(sys.argv[1]))
rng = random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    number = rng.randrange(40)
    key = f"{number:064x}"
    with store.lease(key) as work:
        content = random.Random(number)
        for name in range(4):
            (work.output / str(name)).write_bytes(content.randbytes(20_000))
        (work.notes / "metrics.json").write_text(str(number))
        artifact = store.commit(work.output, "model", "causal-lm")
        report = store.commit(work.notes, "report", "report")
        store.record(StepRecord(key, "tune", "x", {}, artifact.hash, report.hash))
        work.discard()
    if rng.random() < 0.3:
        # Longer than a commit takes on a busy disk, so that nothing is collected while it is being stored.
        garbage.collect(store, grace_seconds=5)
"""


def kill_committers(store: Store, rounds: int) -> int:
    """Kill pairs of committing processes at random moments; how many artifacts and records were seen whole."""
    rng = random.Random(5)
    checked = 0
    for number in range(rounds):
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", COMMITTER, str(store.root), str(2 * number + i)], stdout=-1, stderr=-1
            )
            for i in range(2)
        ]
        for process in pair:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(0.05 + rng.random() * 0.4)
        for process in pair:
            process.send_signal(signal.SIGKILL)
        errors = [process.communicate()[1].decode() for process in pair]
        assert [process.returncode for process in pair] == [-signal.SIGKILL] * 2, errors
        for name in list(store.objects()):
            assert store.verify(name)
            checked += 1
        for name in os.listdir(store.steps_directory) if store.steps_directory.exists() else []:
            assert StepRecord.from_json((store.steps_directory / name).read_text()) is not None
            checked += 1
    assert not store.quarantine.exists() or os.listdir(store.quarantine) == []
    return checked


def test_every_visible_object_is_whole_after_kill_9(store: Store) -> None:
    assert kill_committers(store, 6) > 0


@pytest.mark.slow
def test_every_visible_object_is_whole_after_kill_9_campaign(store: Store) -> None:
    assert kill_committers(store, 60) > 0


# --- disks --------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="uses a tmpfs")
def test_a_full_disk_is_one_clear_error_and_nothing_half_committed(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from luthier import InputError
from luthier.store import Store, StepRecord
store = Store(Path(sys.argv[1]) / "store")
with store.lease("a" * 64) as work:
    (work.output / "weights").write_bytes(b"1" * 100_000)
    free = os.statvfs(sys.argv[1])
    with open(Path(sys.argv[1]) / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(b"0" * 4096): pass
        except OSError: pass
    try:
        store.commit(work.output, "model", "causal-lm")
    except InputError as error:
        assert "no space left on the disk" in error.message and sys.argv[1] in error.message, error
        assert "LUTHIER_HOME" in error.remedy, error
    else:
        sys.exit("committed on a full disk")
    assert (work.output / "weights").stat().st_size == 100_000
    assert list(store.objects()) == [] and os.listdir(store.tmp) == []
    os.unlink(Path(sys.argv[1]) / "filler")
    assert store.verify(store.commit(work.output, "model", "causal-lm").hash)
"""
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -c "$3" "$1"', "sh"]
    if (
        subprocess.run(
            [*mount[:2], "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("this machine lets us mount nothing")
    done = subprocess.run([*mount, tmp_path, sys.executable, script], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_size_limit_is_a_full_disk(store: Store) -> None:
    resource = pytest.importorskip("resource")
    store.prepare()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(InputError, match="no space left"):
            store.record(StepRecord(KEY, "tune", "lora", {}, "0" * 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(store.steps_directory) == os.listdir(store.tmp) == []


@pytest.mark.parametrize(
    "call", ["luthier.files.hash_and_sync", "luthier.files.sync_directory", "luthier.store.write_atomically"]
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_error_anywhere_in_a_commit_leaves_the_output(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    with store.lease(KEY) as work:
        (work.output / "a").write_text("1")
        with monkeypatch.context() as patch:
            patch.setattr(call, fail)
            with pytest.raises(InputError, match="LUTHIER_HOME"):
                store.commit(work.output, "model", "causal-lm")
        assert (work.output / "a").read_text() == "1"
        assert list(store.objects()) == os.listdir(store.tmp) == []
        assert store.verify(store.commit(work.output, "model", "causal-lm").hash)


@pytest.mark.skipif(sys.platform != "linux", reason="uses a read-only mount")
def test_a_read_only_store_can_be_read_and_says_so_on_writing(store: Store) -> None:
    make_step(store)
    script = """
import sys
from pathlib import Path
from luthier import InputError
from luthier.store import Store
store = Store(Path(sys.argv[1]))
assert store.step("a" * 64) is not None
assert store.verify(store.step("a" * 64).output)
for key in ("a" * 64, "c" * 64):
    try:
        with store.lease(key): sys.exit("leased")
    except InputError as error:
        assert sys.argv[1] in error.message and "Read-only" in error.message, error
        assert "LUTHIER_HOME" in error.remedy
"""
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$1"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets us mount nothing")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", store.root, sys.executable, script],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not usable as a directory"):
        Store(tmp_path / "file").prepare()
    with pytest.raises(InputError, match="LUTHIER_HOME"), Store(tmp_path / "file" / "below").lease(KEY):
        pytest.fail("leased")


# --- garbage ------------------------------------------------------------------------------------------


def test_what_a_run_refers_to_stays_and_the_rest_goes(store: Store) -> None:
    kept, lost = make_step(store, KEY, b"kept"), make_step(store, OTHER_KEY, b"lost")
    write_run(store, "one", [KEY])
    would = collect(store, grace_seconds=-1, dry_run=True)
    assert {kept.output, lost.output} <= set(store.objects())
    done = collect(store, grace_seconds=-1)
    assert done == would
    assert (done.objects, done.steps, done.runs) == (1, 1, 0)
    assert done.bytes > 4
    assert store.step(KEY) == kept
    assert store.step(OTHER_KEY) is None
    assert set(store.objects()) == {kept.output, kept.report}
    assert collect(store, grace_seconds=-1).objects == 0


def test_the_young_stay(store: Store) -> None:
    record = make_step(store)
    (store.tmp / "unfinished").mkdir()
    assert collect(store, grace_seconds=3600).steps == 0
    assert store.step(KEY) == record
    assert os.listdir(store.tmp) == ["unfinished"]


def age(store: Store, seconds: float = 7200) -> None:
    for path in [*store.root.rglob("*")]:
        os.utime(path, (time.time() - seconds,) * 2)


def test_use_makes_young_again(store: Store) -> None:
    record = make_step(store)
    spare = commit(store, {"spare": b"1"})
    age(store)
    store.step(KEY)
    commit(store, {"spare": b"1"})
    assert collect(store).objects == 0
    age(store)
    assert collect(store).objects == 3
    assert store.get(record.output) is store.get(spare.hash) is None


def test_the_newest_runs_are_kept(store: Store) -> None:
    for number, name in enumerate(["c", "a", "b"]):
        key = str(number) * 64
        make_step(store, key, name.encode())
        write_run(store, name, [key], started=f"2026-01-0{number + 1}T00:00:00Z")
    assert collect(store, keep_runs=1, grace_seconds=-1).runs == 2
    assert sorted(os.listdir(store.runs)) == ["b"]
    assert [record.key for record in store.steps()] == ["2" * 64]


def test_evaluations_push_out_no_run_that_made_a_model(store: Store) -> None:
    for number, name in enumerate(["a", "b", *(f"evaluation-{each}" for each in range(5)), "c"]):
        key = str(number) * 64
        make_step(store, key, name.encode())
        told = {"evaluates": "a"} if name.startswith("evaluation") else {"evaluates": ""}
        write_run(store, name, [key], started=f"2026-01-0{number + 1}T00:00:00Z", **told)
    assert collect(store, keep_runs=2, grace_seconds=-1).runs == 4
    assert sorted(os.listdir(store.runs)) == ["b", "c", "evaluation-3", "evaluation-4"]
    assert {record.key[0] for record in store.steps()} == {"1", "5", "6", "7"}


def test_leases_protect_work_and_checkpoints_of_runs_stay(store: Store) -> None:
    holder = start_holder(store)
    fail_at(store, OTHER_KEY, "1")
    write_run(store, "killed", [OTHER_KEY])
    assert collect(store, grace_seconds=-1).work == 0, "one is held, one is wanted by a run"
    holder.kill()
    holder.wait()
    assert collect(store, grace_seconds=-1).work == 1
    assert os.listdir(store.work) == [OTHER_KEY]


def test_quarantine_and_leftovers_go(store: Store) -> None:
    artifact = commit(store, {"a": b"1"})
    (artifact.path / "a").unlink()
    assert store.get(artifact.hash) is None
    (store.tmp / "unfinished").mkdir()
    assert collect(store, grace_seconds=-1).leftovers == 2
    assert os.listdir(store.quarantine) == os.listdir(store.tmp) == []


# --- what users see -----------------------------------------------------------------------------------


def test_usage_counts_hard_links_once(store: Store) -> None:
    artifact = commit(store, {"big": b"1" * LINK_FROM})
    store.export(artifact, store.runs / "one" / "model")
    usage = store.usage()
    assert usage["objects"][0] == 1
    assert usage["objects"][1] > LINK_FROM
    assert usage["runs"] == (1, 0)


def test_export_links_what_is_large_and_copies_what_is_small(store: Store, tmp_path: Path) -> None:
    artifact = commit(store, {"weights.bin": b"1" * LINK_FROM, "deep/config.json": b"{}"})
    destination = tmp_path / "model"
    store.export(artifact, destination)
    (destination / "README.md").write_text("mine")
    (destination / "deep/config.json").write_text("edited")
    assert (destination / "weights.bin").stat().st_ino == (artifact.path / "weights.bin").stat().st_ino
    assert store.verify(artifact.hash)
    store.export(artifact, destination)
    assert (destination / "deep/config.json").read_text() == "{}"
    assert sorted(os.listdir(destination)) == ["README.md", "deep", "weights.bin"]


def test_export_copies_where_no_link_can_be_made(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    artifact = commit(store, {"weights.bin": b"1" * LINK_FROM})
    monkeypatch.setattr(os, "link", refuse)
    store.export(artifact, tmp_path / "model")
    assert (tmp_path / "model/weights.bin").read_bytes() == b"1" * LINK_FROM
    assert (tmp_path / "model/weights.bin").stat().st_mode & 0o200


def test_the_control_plane_stays_light() -> None:
    script = (
        "import sys, luthier.store, luthier.garbage, luthier.locations, luthier.gates\n"
        "heavy = {'numpy', 'polars', 'fsspec', 'pydantic', 'huggingface_hub', 'torch', 'pyarrow'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
