"""Accidents in the real server: Run is pressed again, and the video is the same to the bit as without them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.append(str(REPO / "tests" / "support"))

from fault_table import survived  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

KILLS = int(os.environ.get("INFINITETALK_KILLS", "3"))  # 20 for a release
SAMPLER, PICKER = "InfiniteTalkChunkSampler", "InfiniteTalkReferencePicker"
CHANGES = {
    PICKER: {"size": "custom", "width": 64, "height": 64},
    "InfiniteTalkGuidance": {"preset": "custom", "steps": 2, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0},
    SAMPLER: {"chunk_frames": 29, "context_frames": 5, "filename_prefix": "video/InfiniteTalk"},
}
CHUNKS = 5  # of the sample voice's frames


class Bench:
    """A server that can be made unlucky, killed and started again in the same folder."""

    def __init__(self, base: Path, start: Callable[..., Any], workflow: dict[str, Any]) -> None:
        self.base, self.start, self.workflow = base, start, workflow
        self.server = start(base)
        self.sitting = 0

    def restart(self) -> None:
        self.server.stop()
        self.server = self.start(self.base)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)

    def faults(self, **wanted: Any) -> None:
        self.sitting += 1
        (self.base / "faults.json").write_text(json.dumps({"sitting": self.sitting, **wanted}))

    def clear(self) -> None:
        """As if nothing had ever been made."""
        shutil.rmtree(self.base / "output")
        (self.base / "output").mkdir()
        self.faults()

    def queue(self, **inputs: Any) -> str:
        workflow = json.loads(json.dumps(self.workflow))
        for node in workflow.values():
            if node["class_type"] == SAMPLER:
                node["inputs"].update(inputs)
        return self.server.queue(workflow)

    def run(self, **inputs: Any) -> Any:
        return self.server.follow(self.queue(**inputs), timeout=300)

    def video(self, **inputs: Any) -> Path:
        result = self.run(**inputs)
        assert result.status == "success", result.error
        (file,) = [f for f in result.files() if f["filename"].endswith(".mp4")]
        return self.server.path_of(file)

    def videos(self) -> list[str]:
        return sorted(p.name for p in (self.base / "output" / "video").glob("*.mp4"))

    def records(self) -> list[Path]:
        return sorted((self.base / "output" / "infinitetalk_runs").glob("*/0*.json"))

    def run_folder(self) -> Path:
        (folder,) = (self.base / "output" / "infinitetalk_runs").iterdir()
        return folder

    def when(self, happened: Callable[[], Any], act: Callable[[], None], timeout: float = 120) -> threading.Thread:
        """Do something as soon as something happened."""

        def watch() -> None:
            end = time.monotonic() + timeout
            while time.monotonic() < end and not happened():
                time.sleep(0.01)
            act()

        thread = threading.Thread(target=watch)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def start(models_dir, samples) -> Iterator[Callable[..., Any]]:
    """`start(base)`: a server in this folder; all are gone at the end."""
    from comfy_server import ComfyServer
    from conftest import COMFYUI

    from small_models import place_samples

    servers: list[Any] = []

    def start(base: Path, *extra: str) -> Any:
        (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO / "tests" / "support" / "fault_pack.py", base / "custom_nodes" / "faults.py")
        if not (base / "models").exists():
            (base / "models").symlink_to(models_dir, target_is_directory=True)
            place_samples(samples, base / "input")
        server = ComfyServer(
            Path(sys.executable), COMFYUI, base, pack=REPO, extra=("--cache-none", *extra), start_timeout=600
        )
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def bench(start, small, tmp_path_factory) -> Bench:
    workflow = small("video_dubbing")
    for node in workflow.values():
        node["inputs"].update(CHANGES.get(node["class_type"], {}))
    return Bench(tmp_path_factory.mktemp("faults"), start, workflow)


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
    bench.faults(slow=0.4)
    made = 0
    for _ in range(KILLS):
        bench.queue()
        wait = choose.uniform(0.0, 1.5)
        hoped_for = made + choose.choice((0, 1, 1))
        bench.when(lambda n=hoped_for: len(bench.records()) >= n, lambda s=wait: time.sleep(s)).join()
        bench.kill()
        made = len(bench.records())
        bench.restart()
    bench.faults()
    path = bench.video()
    assert path.read_bytes() == undisturbed
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    assert report_of(path)["continued_at_chunk"] == (made + 1 if made else None)
    if made:
        assert f"continuing at chunk {made + 1} of {CHUNKS}" in bench.server.log()
    survived("kill -9 of the server", f"{KILLS} times over one run, at random moments", "the same video to the bit")


@pytest.mark.parametrize("chunk", [0, 2])
def test_interrupted(bench, undisturbed, chunk):
    bench.faults(slow=0.5)
    prompt = bench.queue()
    runs = bench.base / "output" / "infinitetalk_runs"
    bench.when(lambda: runs.exists() and len(bench.records()) >= chunk, bench.server.interrupt).join()
    assert bench.server.follow(prompt, timeout=300).status == "interrupted"
    if chunk:
        assert bench.videos() == ["InfiniteTalk_00001__interrupted.mp4"]
    bench.faults()
    assert bench.video().read_bytes() == undisturbed
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    survived("interrupt", "before the first chunk and after the second", "the same video to the bit")


def test_out_of_memory_inside_a_chunk(bench, undisturbed):
    bench.faults(memory=3)
    result = bench.run()
    assert result.status == "error" and "memory" in str(result.error).lower()
    assert len(bench.records()) == 2
    bench.faults()
    path = bench.video()
    assert path.read_bytes() == undisturbed and report_of(path)["continued_at_chunk"] == 3
    survived("out of memory", "inside the third chunk", "the same video to the bit, from that chunk on")


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
    survived("disk full", f"while writing {where}", "a sentence; then the same video to the bit")


@pytest.mark.parametrize("what", ["infinitetalk_runs", "video"])
def test_a_read_only_output_folder(bench, undisturbed, what):
    if what == "video":
        shutil.rmtree(bench.base / "output" / "video", ignore_errors=True)
    bench.faults(readonly=f"{what}")
    result = bench.run()
    assert result.status == "error"
    assert "Read-only file system): check that disk and folder, then run again" in str(result.error)
    bench.faults()
    assert bench.video().read_bytes() == undisturbed
    survived("read-only output folder", "from the start", "a sentence; then the same video to the bit")


def test_a_source_that_is_changed_or_deleted_while_it_is_read(bench, undisturbed):
    source = bench.base / "input" / "portrait.mp4"
    content = source.read_bytes()
    try:
        bench.faults(slow=0.3)
        prompt = bench.queue()
        bench.when(bench.records, lambda: source.write_bytes(content + b"\0" * 8)).join()
        result = bench.server.follow(prompt, timeout=300)
        assert result.status == "error"
        assert "the source file was changed while the video was being made" in str(result.error)
        source.write_bytes(content)
        survived("source changed in mid-run", "after the first chunk", "a sentence; the changed file is a new run")
        prompt = bench.queue()
        bench.when(lambda: len(bench.records()) >= 2, source.unlink).join()
        result = bench.server.follow(prompt, timeout=300)
        assert result.status == "success", result.error
        assert (bench.base / "output" / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
        survived("source deleted in mid-run", "after the second chunk", "the run goes on: the file stays open")
    finally:
        source.write_bytes(content)


def test_a_clock_that_goes_backwards(bench, undisturbed):
    bench.faults(clock=60, memory=3)
    assert bench.run().status == "error"
    bench.faults(clock=3600)
    assert bench.video().read_bytes() == undisturbed
    survived("clock going backwards", "by a minute, then an hour, at every look", "the same video to the bit")


def test_two_clients_with_the_same_job(bench, undisturbed):
    first, second = bench.queue(), bench.queue()
    results = [bench.server.follow(prompt, timeout=300) for prompt in (first, second)]
    assert [r.status for r in results] == ["success", "success"]
    assert bench.videos() == ["InfiniteTalk_00001_.mp4"]
    assert (bench.base / "output" / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
    survived("two clients, the same job", "queued one after the other", "made once; both get the video")


def test_two_servers_with_the_same_job(bench, undisturbed, start, tmp_path):
    other = start(tmp_path / "other", "--output-directory", str(bench.base / "output"))
    bench.faults(slow=1.0)
    mine = bench.queue()
    bench.when(bench.records, lambda: None).join()
    result = other.follow(other.queue(bench.workflow), timeout=300)
    assert result.status == "error"
    assert f"this very video is being made by another ComfyUI (process {bench.server.pid}" in str(result.error)
    assert bench.server.follow(mine, timeout=300).status == "success"
    assert (bench.base / "output" / "video" / "InfiniteTalk_00001_.mp4").read_bytes() == undisturbed
    other.stop()
    survived("two servers, the same job", "in one output folder", "the second is told who makes it")


def stop_after(bench: Bench, chunks: int) -> None:
    bench.faults(memory=chunks + 1)
    assert bench.run().status == "error"
    bench.faults()


def test_a_segment_cut_by_hand(bench, undisturbed):
    stop_after(bench, 3)
    (segment,) = bench.run_folder().glob("00002-*.mp4")
    segment.write_bytes(segment.read_bytes()[:-100])
    path = bench.video()
    assert path.read_bytes() == undisturbed and report_of(path)["continued_at_chunk"] == 2
    survived("segment truncated by hand", "the second of three", "it alone is made again; the same video to the bit")


def test_a_manifest_of_a_newer_version(bench, undisturbed, voice_frames):
    stop_after(bench, 2)
    manifest = bench.run_folder() / "run.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 99}))
    result = bench.run()
    assert result.status == "error" and "begun by a newer version of this pack (format 99" in str(result.error)
    assert len(bench.records()) == 2, "nothing is touched"
    path = bench.video(start_over=True)
    assert frames_of(path) == voice_frames
    survived("manifest of a newer version", "found on Run", "a sentence, nothing touched; start_over makes it anew")


def test_other_settings_are_another_run(bench, undisturbed):
    stop_after(bench, 2)
    path = bench.video(seed=4711)
    assert report_of(path)["continued_at_chunk"] is None and path.read_bytes() != undisturbed
    path = bench.video()
    assert report_of(path)["continued_at_chunk"] == 3, "the first one is still there to be continued"


def test_a_chunk_is_made_again(bench, undisturbed):
    first = bench.video(keep_intermediates=True)
    again = bench.video(keep_intermediates=True, redo_chunks="4=99", after_redo="keep")
    assert again != first and frames_of(again) == frames_of(first)
    report = report_of(again)
    assert report["continued_at_chunk"] == 4 and report["redo"] == "4=99"
    assert report["chunks"][4] == report_of(first)["chunks"][4], "the chunk after it stayed"
    assert len(bench.records()) == CHUNKS + 1
