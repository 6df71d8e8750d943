"""Accidents in the real server: Run is pressed again, and the video is the same to the bit as without them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import pytest
from fault_bench import CHUNKS, FRAMES, PHASES, Bench
from fault_table import record_fault_result

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

WEIGHTS = "tiny_infinitetalk_single.safetensors"
KILLS = int(os.environ.get("INFINITETALK_KILLS", "3"))  # 20 for a release


@pytest.fixture(scope="module")
def bench(faulty_server, small) -> Bench:
    return Bench(faulty_server.base, faulty_server, small("video_dubbing"))


@pytest.fixture(scope="module")
def undisturbed(bench) -> bytes:
    """The video as it is when nothing happens."""
    bench.clear()
    return bench.video().read_bytes()


@pytest.fixture(autouse=True)
def _fresh(request) -> None:
    """Each test begins with an empty output folder."""
    if "bench" in request.fixturenames:
        request.getfixturevalue("undisturbed")
        request.getfixturevalue("bench").clear()


def report_of(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


def frames_of(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def test_killed_again_and_again(bench, undisturbed):
    """kill -9 at random moments, the server started again each time."""
    choose = random.Random(6)
    bench.faults(slow=2.0)  # no chunk is made while we wait
    made = 0
    for _ in range(KILLS):
        bench.queue()
        wait = choose.uniform(0.0, 1.5)
        # Seldom enough a chunk further that the run outlasts all kills.
        hoped_for = made + (made < CHUNKS - 1 and choose.random() < min(2 / 3, (CHUNKS - 1) / KILLS))
        bench.when(lambda n=hoped_for: len(bench.records()) >= n, lambda s=wait: time.sleep(s))
        bench.kill()
        made = len(bench.records())
        bench.restart()
    bench.faults()
    path = bench.video()
    assert path.read_bytes() == undisturbed
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    report = report_of(path)
    if made < CHUNKS:
        assert report["continued_at_chunk"] == (made + 1 if made else None)
    manifest = json.loads((bench.output / report["run"] / "run.json").read_text())
    killed = [execution for execution in manifest["executions"] if execution["state"] == "unfinished"]
    assert all("ended" not in execution for execution in killed)
    assert manifest["executions"][-1]["state"] == "finished" and manifest["executions"][-1]["from_chunk"] == made + 1
    record_fault_result(
        "kill -9 of the server", f"{KILLS} times during one run, at random times", "bit-identical video"
    )


def test_interrupted_at_every_phase(bench, undisturbed):
    """One run, interrupted again and again: each time one phase further."""
    for phase in PHASES:
        bench.faults(pause=phase)
        prompt = bench.queue()
        bench.when(bench.reached.exists, bench.server.interrupt)
        status = bench.server.follow(prompt, timeout=300).status
        # Once all chunks are there nothing looks for an interrupt any more: the video comes out.
        assert status == "interrupted" or (phase == PHASES[-1] and status == "success"), phase
        if phase == "keeping the chunk":
            assert bench.videos() == ["InfiniteTalk_00001__interrupted.mp4"], "what there is can be watched"
    bench.faults()
    assert bench.video().read_bytes() == undisturbed
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    record_fault_result("interrupt", f"in each phase of one run: {', '.join(PHASES)}", "bit-identical video")


def test_out_of_memory_inside_a_chunk(bench, undisturbed):
    bench.faults(memory=3)
    result = bench.run()
    assert result.status == "error" and "memory" in str(result.error).lower()
    assert len(bench.records()) == 2
    bench.faults()
    path = bench.video()
    assert path.read_bytes() == undisturbed and report_of(path)["continued_at_chunk"] == 3
    record_fault_result("out of memory", "inside the third chunk", "bit-identical video, resumed at that chunk")


@pytest.mark.parametrize(
    ("what", "where"), [("run.json", "the manifest"), ("00003-", "a segment"), (".part.mp4", "the video itself")]
)
def test_a_full_disk(bench, undisturbed, what, where):
    bench.faults(full=what)
    result = bench.run()
    assert result.status == "error"
    assert "No space left on device): free some space there, then run again" in str(result.error) or (
        what == ".part.mp4" and "No space" in str(result.error)
    )
    bench.faults()
    assert bench.video().read_bytes() == undisturbed
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    record_fault_result("disk full", f"while writing {where}", "an error message; then a bit-identical video")


@pytest.mark.parametrize("what", ["infinitetalk_runs", "video"])
def test_a_read_only_output_folder(bench, undisturbed, what):
    if what == "video":
        shutil.rmtree(bench.output / "video", ignore_errors=True)
    bench.faults(readonly=f"{what}")
    result = bench.run()
    assert result.status == "error"
    assert "Read-only file system): check that disk and folder, then run again" in str(result.error)
    bench.faults()
    assert bench.video().read_bytes() == undisturbed
    record_fault_result("read-only output folder", "from the start", "an error message; then a bit-identical video")


@contextlib.contextmanager
def disk_of(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own, so small, at `folder`; needs the right to mount."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "infinitetalk", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user may not mount a small disk: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_a_real_disk_that_fills_up_and_turns_read_only(bench, undisturbed):
    """No made-up error: a disk that is too small for the run, then one that the system has turned read-only."""
    with disk_of(bench.output, "220k"):
        result = bench.run()
        assert result.status == "error" and "No space left on device" in str(result.error)
        made = len(bench.records())
        # Where a page of memory is larger than usual, not even the first chunk fits.
        assert (0 if mmap.PAGESIZE > 4096 else 1) <= made < CHUNKS, "it filled up in the middle"
        remount(bench.output, "ro,size=220k")
        result = bench.run()
        assert result.status == "error" and "Read-only file system" in str(result.error)
        remount(bench.output, "rw,size=64m")
        path = bench.video()
        assert path.read_bytes() == undisturbed
        assert report_of(path)["continued_at_chunk"] == (made + 1 if made else None)
        assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    record_fault_result("disk full", "a real full disk, during a run", "an error message; then a bit-identical video")
    record_fault_result(
        "read-only output folder", "a real disk, during a run", "an error message; then a bit-identical video"
    )


def test_a_source_that_is_changed_or_deleted_while_it_is_read(bench, undisturbed):
    source = bench.base / "input" / "portrait.mp4"
    content = source.read_bytes()
    try:
        bench.faults(slow=0.3)
        prompt = bench.queue()
        bench.when(bench.records, lambda: source.write_bytes(content + b"\0" * 8))
        result = bench.server.follow(prompt, timeout=300)
        assert result.status == "error"
        assert "the source file was changed while the video was being made" in str(result.error)
        source.write_bytes(content)
        record_fault_result(
            "source changed during a run",
            "after the first chunk",
            "an error message; the changed file starts a new run",
        )
        prompt = bench.queue()
        bench.when(lambda: len(bench.records()) >= 2, source.unlink)
        result = bench.server.follow(prompt, timeout=300)
        assert result.status == "success", result.error
        assert (bench.output / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
        record_fault_result(
            "source deleted during a run", "after the second chunk", "the run continues, since the file is open"
        )
    finally:
        source.write_bytes(content)


@contextlib.contextmanager
def model_of_its_own(bench, path: str) -> Iterator[Path]:
    """A file of the server's models folder as a copy that may be harmed; the original stays as it is."""
    models, shared = bench.base / "models", (bench.base / "models").resolve()
    whole = shared / path
    models.unlink()
    try:
        for folder in shared.iterdir():
            (models / folder.name).mkdir(parents=True)
            for file in folder.iterdir():
                (models / folder.name / file.name).symlink_to(file)
        (models / path).unlink()
        shutil.copyfile(whole, models / path)
        yield models / path
    finally:
        shutil.rmtree(models)
        models.symlink_to(shared, target_is_directory=True)


@pytest.mark.parametrize("how", ["truncated", "overwritten"])
def test_a_weights_file_that_is_harmed_while_a_chunk_is_made(bench, undisturbed, how):
    """A job has its weights in memory of its own."""
    with model_of_its_own(bench, f"model_patches/{WEIGHTS}") as weights:

        def harm() -> None:
            with weights.open("r+b") as file:
                if how == "truncated":
                    file.truncate(0)
                else:
                    file.write(bytes(weights.stat().st_size))

        bench.faults(slow=1.0)
        prompt = bench.queue()
        bench.when(bench.records, harm)
        result = bench.server.follow(prompt, timeout=300)
        assert bench.server.alive() and result.status == "success", result.error or bench.server.log_tail()
        assert (bench.output / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
    record_fault_result(f"weights file {how} during a run", "while the second chunk is made", "bit-identical video")


def test_a_clock_that_goes_backwards(bench, undisturbed):
    bench.faults(clock=60, memory=3)
    assert bench.run().status == "error"
    bench.faults(clock=3600)
    assert bench.video().read_bytes() == undisturbed
    record_fault_result("clock going backwards", "by a minute, then an hour, at every call", "bit-identical video")


def test_two_clients_with_the_same_job(bench, undisturbed):
    first, second = bench.queue(), bench.queue()
    results = [bench.server.follow(prompt, timeout=300) for prompt in (first, second)]
    assert [r.status for r in results] == ["success", "success"]
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    assert (bench.output / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
    record_fault_result(
        "two clients, the same job", "queued one after the other", "made once; both clients get the video"
    )


def test_two_servers_in_one_output_folder(bench, undisturbed, servers, tmp_path):
    other = servers.start(tmp_path / "other", "--output-directory", str(bench.output))
    bench.faults(slow=1.0)
    mine = bench.queue()
    bench.when(bench.records)
    result = other.follow(other.queue(bench.workflow), timeout=300)
    assert result.status == "error"
    assert f"this very video is being made by another ComfyUI (process {bench.server.pid}" in str(result.error)
    assert bench.server.follow(mine, timeout=300).status == "success"
    assert (bench.output / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
    record_fault_result(
        "two servers, the same job", "in one output folder", "the second reports that the other one makes it"
    )
    bench.clear()
    bench.faults(slow=1.0)
    mine = bench.queue()
    bench.when(bench.records)
    result = other.follow(bench.queue(other, seed=4711), timeout=300)
    assert result.status == "success", result.error
    assert bench.server.follow(mine, timeout=300).status == "success"
    assert bench.videos() == ["InfiniteTalk_00001_.mp4", "InfiniteTalk_00002_.mp4"]
    assert (bench.output / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
    assert frames_of(bench.output / "video" / "InfiniteTalk_00002_.mp4") == FRAMES
    other.stop()
    record_fault_result("two servers, two jobs of one name", "in one output folder", "two videos with different names")


def test_a_segment_cut_by_hand(bench, undisturbed):
    bench.stop_after(3)
    (segment,) = bench.run_folder().glob("00002-*.mp4")
    segment.write_bytes(segment.read_bytes()[:-100])
    path = bench.video()
    assert path.read_bytes() == undisturbed and report_of(path)["continued_at_chunk"] == 2
    record_fault_result(
        "segment truncated by hand", "the second of three", "only it is made again; bit-identical video"
    )


def test_a_long_voice_is_not_heard_again_unless_what_is_kept_of_it_is_damaged(bench, undisturbed):
    bench.faults(long=True, slow=0.3)
    bench.queue()
    bench.when(bench.records, bench.kill)
    bench.restart()
    bench.faults(long=True, memory=2)
    assert bench.run().status == "error"
    assert "this voice was encoded before" in bench.server.log_tail(400)
    (kept,) = (bench.runs / "voices").iterdir()
    kept.write_bytes(b"\1" + kept.read_bytes()[1:])
    bench.faults(long=True)
    assert bench.video().read_bytes() == undisturbed
    assert f"{kept.name} is damaged; the voice is encoded again" in bench.server.log_tail(400)
    assert not list((bench.runs / "voices").iterdir()), "the video is finished"
    record_fault_result(
        "features of a voice damaged by hand", "found on Run", "it is encoded again; bit-identical video"
    )


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest with the right checksum."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return {**content, "sha256": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def test_a_manifest_of_a_newer_version(bench, undisturbed):
    bench.stop_after(2)
    manifest = bench.run_folder() / "run.json"
    newer = {**json.loads(manifest.read_text()), "version": 99}
    manifest.write_text(json.dumps(sealed(newer)))
    result = bench.run()
    assert result.status == "error" and "begun by a newer version of this pack (format 99" in str(result.error)
    assert len(bench.records()) == 2, "nothing is touched"
    path = bench.video(start_over=True)
    assert frames_of(path) == FRAMES
    record_fault_result(
        "manifest of a newer version",
        "found on Run",
        "an error message, no file is changed; start_over begins a new run",
    )


def upload(url: str, name: str, content: bytes, **fields: str) -> None:
    """Send a file to ComfyUI's own /upload/image, as any client can."""
    boundary = "----film"
    parts = [f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    parts.append(f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode() + content)
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/upload/image", body, headers), timeout=30) as answer:
        assert answer.status == 200


def test_a_manifest_uploaded_by_a_client(bench, undisturbed, monkeypatch):
    """Through ComfyUI's own upload, with names of other files, right checksums, and size and content of these files."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    fingerprint_of = import_module("infinitetalk_core.fingerprint").file_fingerprint
    bench.stop_after(2)
    folder = bench.run_folder()
    films = [bench.base / "film.mp4", bench.output / "video" / "film.mp4", bench.output / "film.part.mp4"]
    names = ["../film.mp4", str(films[0]), "video/../../film.mp4", "video/film.mp4", "film.mp4"]
    for film in films:
        film.write_bytes(b"a film")
    before = {path for path in bench.base.iterdir()}
    for name in names:
        entries = json.loads((folder / "run.json").read_text())
        note = {"video": name, "bytes": len(b"a film"), "fingerprint": fingerprint_of(films[0])}
        entries |= {"video": name, "interrupted": [note]}
        place = {"subfolder": f"infinitetalk_runs/{folder.name}", "type": "output", "overwrite": "true"}
        upload(bench.server.url, "run.json", json.dumps(sealed(entries)).encode(), **place)
        assert json.loads((folder / "run.json").read_text())["video"] == name
        bench.faults(memory=1)
        assert bench.run().status == "error"
    bench.faults()
    path = bench.video()
    assert path.read_bytes() == undisturbed and path.parent.is_relative_to(bench.output)
    assert [film.read_bytes() for film in films] == [b"a film"] * 3
    assert {path for path in bench.base.iterdir()} == before
    for film in films:
        film.unlink()


def test_other_settings_are_another_run(bench, undisturbed):
    bench.stop_after(2)
    path = bench.video(seed=4711)
    assert report_of(path)["continued_at_chunk"] is None and path.read_bytes() != undisturbed
    path = bench.video()
    assert report_of(path)["continued_at_chunk"] == 3, "the first one is still there to be continued"


def test_a_chunk_is_made_again(bench, undisturbed):
    first = bench.video(keep_intermediates=True)
    again = bench.video(keep_intermediates=True, redo_chunks="4=99", after_redo="keep")
    assert again != first and frames_of(again) == frames_of(first)
    report = report_of(again)
    assert report["continued_at_chunk"] == 4 and report["redo_chunks"] == "4=99"
    assert report["chunks"][4] == report_of(first)["chunks"][4], "the chunk after it stayed"
    assert len(bench.records()) == CHUNKS + 1
