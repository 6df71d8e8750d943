"""A chunk is measured, encoded and stored while the next one is made: what is hidden, and what stays as it was."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import weakref
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from infinitetalk_core.chunks.assembly import Assembly
from infinitetalk_core.chunks.camera_control import CameraControl
from infinitetalk_core.chunks.job import Job, Reference
from infinitetalk_core.chunks.pinned import Pinned
from infinitetalk_core.chunks.read_ahead import ReadAhead
from infinitetalk_core.chunks.reference import AfterEnd, Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.fingerprint import Component
from infinitetalk_core.runs import runner
from infinitetalk_core.runs.store import RunStore
from infinitetalk_core.runs.worker import Worker
from infinitetalk_core.standalone import write_video
from infinitetalk_core.video.source import PictureBatch, VideoFile
from tests.support.runs import FailingDisk, InputSensitiveModels, RunFolder, SessionLog, no_space, small_job

GPU_SECONDS, CPU_SECONDS = 0.9, 0.8
CHUNKS = 3


@dataclass
class SleepingModels(InputSensitiveModels):
    """Models whose sampler sleeps, as Python does while a GPU computes."""

    seconds: float = GPU_SECONDS
    steps: int = 3
    sampled: list[tuple[float, float]] = field(default_factory=list)  # when each chunk was

    def denoise(self, conditioning, after_step):
        began = time.monotonic()
        for step in range(self.steps):
            time.sleep(self.seconds / self.steps)
            latents = super().denoise(conditioning, lambda _, latents, step=step: after_step(step, latents))
        self.sampled.append((began, time.monotonic()))
        return latents


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The video of a run to which nothing happens."""
    return RunFolder(tmp_path_factory.mktemp("calm")).dub().path.read_bytes()


def slow_commit(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Make each commit take that long; return when each began."""
    plain, began = RunStore.commit, []

    def commit(self, *args):
        began.append(time.monotonic())
        time.sleep(seconds)
        plain(self, *args)

    monkeypatch.setattr(RunStore, "commit", commit)
    return began


def test_nine_tenths_of_the_work_beside_the_gpu_are_hidden(tmp_path, undisturbed, monkeypatch):
    slow_commit(monkeypatch, CPU_SECONDS)
    models = SleepingModels()
    RunFolder(tmp_path, job=small_job(13 + 8 * 3), models=models).dub()
    waits = [later[0] - earlier[1] for earlier, later in pairwise(models.sampled)]
    # Without the worker, none of them is shorter than the work. The others are, on a machine with nothing else to do.
    assert len(waits) == 3 and min(waits) < 0.1 * CPU_SECONDS, waits


def test_a_worker_slower_than_the_gpu_holds_it_up_one_chunk_behind(tmp_path, undisturbed, monkeypatch):
    began = slow_commit(monkeypatch, 0.3)
    models = SleepingModels(seconds=0.0)
    assert RunFolder(tmp_path, models=models).dub().path.read_bytes() == undisturbed
    for number, stored in enumerate(began[:-1]):
        assert models.sampled[number + 1][0] > models.sampled[number][1]
        assert stored < models.sampled[number + 1][1] + 0.3, "at most one chunk waits"
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(began)), "one at a time, in order"


def test_the_listener_is_called_in_the_thread_of_the_run_after_the_chunk_is_stored(tmp_path, undisturbed):
    workspace, events = RunFolder(tmp_path), []

    class Listener(SessionLog):
        def after_step(self, chunk, step, denoised):
            events.append(("step", chunk.index + 1, threading.current_thread()))

        def chunk_made(self, finished, metrics):
            number = finished.chunk.index + 1
            assert list(workspace.folder.glob(f"{number:05}-*.json")) and metrics["chunk"] == number
            assert finished.frames.shape[1:] == (32, 48, 3)
            events.append(("made", number, threading.current_thread()))

    assert workspace.dub(notes=Listener()).path.read_bytes() == undisturbed
    assert {thread for _, _, thread in events} == {threading.current_thread()}
    for kind in ("step", "made"):
        assert [number for what, number, _ in events if what == kind] == [1, 2, 3]
    order = [event[:2] for event in events]
    for number in (1, 2):
        assert order.index(("step", number)) < order.index(("made", number)) < order.index(("made", number + 1))


def test_an_error_of_the_worker_stops_the_chunk_in_the_sampler(tmp_path, undisturbed):
    models, steps = SleepingModels(seconds=1.0, steps=10), []

    class FullAtTheFirstChunk(FailingDisk):
        def write(self, path, data):
            if path.name.startswith("00001-"):
                self.how()
            super().write(path, data)

    workspace = RunFolder(tmp_path, models=models)
    notes = SessionLog(on_chunk=steps.append)
    with pytest.raises(OSError, match="No space left on device"):
        workspace.dub(FullAtTheFirstChunk(), notes)
    assert len(models.sampled) == 1 and steps.count(2) < 5 and 3 not in steps and notes.made == []
    assert not list(tmp_path.glob("v*"))
    assert RunFolder(tmp_path).dub().path.read_bytes() == undisturbed


@pytest.mark.parametrize("chunk", [2, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError, InputError])
def test_an_interrupt_while_the_worker_runs_keeps_the_finished_chunk(tmp_path, undisturbed, monkeypatch, error, chunk):
    slow_commit(monkeypatch, 0.3)
    workspace = RunFolder(tmp_path, models=SleepingModels(seconds=0.0))

    def strike(now: int) -> None:
        if now == chunk:
            raise error("in the middle")

    threads = threading.active_count()
    with pytest.raises(error):
        workspace.dub(notes=SessionLog(on_chunk=strike))
    assert threading.active_count() == threads, "nothing goes on writing"
    assert len(list(workspace.folder.glob("0*.json"))) == chunk - 1
    assert workspace.videos() == ["v_interrupted.mp4"]
    assert len(json.loads((tmp_path / "v.json").read_text())["chunks"]) == chunk - 1, "and is in the report"
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed
    assert notes.found_done == chunk - 1 and notes.made == list(range(chunk, CHUNKS + 1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("where", ["before it is stored", "before it is joined"])
def test_a_process_that_is_gone_while_the_worker_encodes(tmp_path, undisturbed, monkeypatch, where):
    """Kill -9 from the thread of the run, in the second chunk, while the first one is in the worker."""
    workspace, inside = RunFolder(tmp_path), threading.Event()
    plain = RunStore.commit

    def commit(self, *args):
        if where == "before it is joined":
            plain(self, *args)
        inside.set()
        time.sleep(5)

    def strike(chunk: int) -> None:
        if chunk == 2:
            inside.wait(5)
            os._exit(137)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(RunStore, "commit", commit)
        workspace.dub(notes=SessionLog(on_chunk=strike))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137
    notes = SessionLog()
    assert workspace.dub(notes=notes).path.read_bytes() == undisturbed
    assert notes.made == ([1, 2, 3] if where == "before it is stored" else [2, 3])


def test_the_frames_of_a_chunk_are_freed_before_it_is_encoded(tmp_path, monkeypatch):
    frames, alive = [], []
    plain_measure, plain_commit = runner.measure, RunStore.commit

    def measure(job, finished, *more):
        frames.append(weakref.ref(finished.frames))
        return plain_measure(job, finished, *more)

    def commit(self, *args):
        time.sleep(0.2)  # the thread of the run is in the next chunk
        gc.collect()
        alive.append(sum(each() is not None for each in frames))
        plain_commit(self, *args)

    monkeypatch.setattr(runner, "measure", measure)
    monkeypatch.setattr(RunStore, "commit", commit)
    RunFolder(tmp_path, models=SleepingModels(seconds=0.6)).dub()
    assert alive == [0, 0, 0]


def test_a_video_without_a_run_is_encoded_beside_too(tmp_path, monkeypatch):
    plain, sampled = Assembly.add, []

    def add(self, *args):
        if sampled:
            no_space()
        plain(self, *args)

    monkeypatch.setattr(Assembly, "add", add)
    models, threads = SleepingModels(seconds=0.5, steps=10), threading.active_count()
    with pytest.raises(OSError, match="No space left on device"):
        write_video(
            tmp_path / "v.mp4", small_job(), models, lambda chunk, step, denoised: sampled.append((chunk.index, step))
        )
    assert len([step for chunk, step in sampled if chunk == 1]) < 10 and len(models.sampled) == 1
    assert threading.active_count() == threads and not list(tmp_path.glob("v.mp4"))
    monkeypatch.undo()
    whole = write_video(tmp_path / "w.mp4", small_job(), InputSensitiveModels())
    with VideoFile(whole) as video:
        assert video.length == 25


# -- the source


@dataclass
class WatchedSource:
    """A source of 90 frames that notes who reads what, and fails if two read at once."""

    fails_at: int | None = None
    height, width, length = 32, 48, 90
    reads: list[tuple[float, int, str]] = field(default_factory=list)
    busy: threading.Lock = field(default_factory=threading.Lock)

    def frame(self, index: int) -> torch.Tensor:
        assert self.busy.acquire(blocking=False), "two threads read at once"
        try:
            self.reads.append((time.monotonic(), index, threading.current_thread().name))
            if index == self.fails_at:
                raise OSError("the drive is gone")
            time.sleep(0.001)
            return torch.rand(32, 48, 3, generator=torch.Generator().manual_seed(index))
        finally:
            self.busy.release()

    def fingerprint(self) -> str:
        return "watched"

    def changed(self) -> bool:
        assert self.busy.acquire(blocking=False), "asked while another thread reads"
        self.busy.release()
        return False

    def close(self) -> None:
        pass


def jobs() -> dict[str, Job]:
    """Jobs by what they read."""
    settings = {
        policy.value: ReferenceSettings(policy, times_seconds=(0.5,) * 5 if policy is Policy.BY_HAND else ())
        for policy in Policy
    }
    found = {name: {"settings": each} for name, each in settings.items()}
    start = ReferenceSettings(Policy.CHUNK_START)
    found["looped"] = {"settings": ReferenceSettings(Policy.NEIGHBOR, AfterEnd.PING_PONG)}
    found["SDEdit"] = {"settings": start, "sdedit": (0.6,)}
    found["pinned"] = {"settings": start, "pinned": Pinned(torch.zeros(1, 32, 48).index_fill(1, torch.arange(9), 1))}
    found["camera"] = {"settings": start, "camera": CameraControl(Component(None, "c"))}
    found["cuts"] = {"settings": start, "cuts": (20, 33)}
    return {name: small_job(13 + 8 * 4, source=WatchedSource(), **options) for name, options in found.items()}


@pytest.mark.parametrize("kind", list(jobs()))
def test_the_source_is_read_ahead_whatever_a_chunk_needs_of_it(tmp_path, kind):
    """From the first sampling on, the thread of the run reads nothing itself, and no two threads read at once."""
    job, models = jobs()[kind], SleepingModels(seconds=0.0)
    source = job.reference.source
    RunFolder(tmp_path, job=job, models=models).dub()
    later = [thread for moment, _, thread in source.reads if moment > models.sampled[0][0]]
    assert later and all(thread.startswith("infinitetalk-chunk") for thread in later)


def test_an_error_of_the_source_is_raised_once_and_costs_no_finished_chunk(tmp_path):
    options = {"settings": ReferenceSettings(Policy.CHUNK_START), "sdedit": (0.6,)}
    calm = RunFolder(tmp_path / "calm", job=small_job(37, source=WatchedSource(), **options))
    calm.root.mkdir()
    whole = calm.dub().path.read_bytes()
    job = small_job(37, source=WatchedSource(fails_at=30), **options)
    workspace = RunFolder(tmp_path, job=job)
    with pytest.raises(OSError, match="the drive is gone"):
        workspace.dub()
    made = len(list(workspace.folder.glob("0*.json")))
    chunk = next(planned.chunk for planned in job.plan if planned.chunk.start + planned.chunk.length > 30)
    assert chunk.index - 1 <= made <= chunk.index
    workspace.job = replace(job, reference=replace(job.reference, source=WatchedSource()))
    assert workspace.dub().path.read_bytes() == whole


def test_after_an_error_a_source_is_not_read_on():
    """A chunk that is sampled again begins to read again, and the decoder would go on with another picture."""
    calls = []

    class Broken(PictureBatch):
        def frame(self, index):
            calls.append(index)
            raise MemoryError("made up by a test")

    source = Broken(torch.rand(9, 32, 48, 3))
    with Worker() as worker, ReadAhead.of(Reference(source, 32, 48), worker.submit) as reference:
        reference.start([1, 2])
        with pytest.raises(MemoryError):
            reference.start([1, 2])
        with pytest.raises(MemoryError):
            reference.pixels(2)
    assert calls == [1]


def test_the_next_execution_finds_no_thread_of_the_last(tmp_path):
    before = {thread.name for thread in threading.enumerate()}
    RunFolder(Path(tmp_path)).dub()
    assert {thread.name for thread in threading.enumerate()} == before
