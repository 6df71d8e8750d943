"""The shared model cache in a real server: read once for all prompts and workflows, let go when it should be."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import struct
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

REPO = Path(__file__).resolve().parents[2]
WEIGHTS, ENCODER = "tiny_infinitetalk_single.safetensors", "tiny_wav2vec2.safetensors"
CHANGES: dict[str, dict[str, Any]] = {
    "InfiniteTalkReferencePicker": {"size": "custom", "width": 64, "height": 64},
    "InfiniteTalkGuidance": {"preset": "custom", "steps": 1, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0},
    "InfiniteTalkChunkSampler": {"chunk_frames": 13, "context_frames": 5, "start_over": True},
    "LoadAudio": {"audio": "short.wav"},
}
UNRELATED = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 1, "color": 255}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
JOBS = 20
OPENED = 0x20  # IN_OPEN


class Bench:
    """A server in a folder of its own, so that its model files can be changed."""

    def __init__(self, server: Any, workflow: Callable[[str], dict[str, Any]]) -> None:
        self.server, self.workflow = server, workflow
        self.patches = server.base / "models" / "model_patches"

    def job(self, name: str = "talking_portrait", **changes: dict[str, Any]) -> dict[str, Any]:
        """A workflow, a second of video on the small models; changes: inputs by node type."""
        workflow = json.loads(json.dumps(self.workflow(name)))
        for node in workflow.values():
            node["inputs"].update(CHANGES.get(node["class_type"], {}))
            node["inputs"].update(changes.get(node["class_type"], {}))
        return workflow

    def run(self, workflow: dict[str, Any]) -> Any:
        result = self.server.run(workflow, timeout=200)
        assert result.status == "success", result.error
        return result

    def cache(self, **inputs: Any) -> str:
        """What the Model Cache node says."""
        node = {"class_type": "InfiniteTalkModelCache", "inputs": {"budget_gb": -1.0, "empty": False, **inputs}}
        return self.run({"1": node}).outputs["1"]["text"][0]

    def counts(self, number: int) -> dict[str, int]:
        node = {"class_type": "CountEverything", "inputs": {"number": number}}
        return json.loads(self.run({"1": node}).outputs["1"]["text"][0])

    def loads(self, what: str) -> int:
        """How often the log says that a file was read, or was `from the cache`."""
        return sum("InfiniteTalk:" in line and what in line for line in self.server.log().splitlines())

    def bytes_read(self) -> int:
        """By the server, through the operating system's calls, so far."""
        lines = Path(f"/proc/{self.server.pid}/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["rchar"])


@pytest.fixture(scope="module")
def bench(models_dir: Path, samples: Path, small: Any, tmp_path_factory: Any) -> Iterator[Bench]:
    from comfy_server import ComfyServer
    from conftest import COMFYUI

    from small_models import place_samples

    base = tmp_path_factory.mktemp("cache")
    shutil.copytree(models_dir, base / "models")
    place_samples(samples, base / "input")
    with wave.open(str(base / "input" / "short.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.random.default_rng(0).normal(size=8000) * 3000).astype("<i2").tobytes())
    (base / "custom_nodes").mkdir()
    shutil.copyfile(REPO / "tests" / "support" / "counting_pack.py", base / "custom_nodes" / "counting.py")
    with ComfyServer(Path(sys.executable), COMFYUI, base, pack=REPO) as server:
        yield Bench(server, small)


class Opened:
    """Which files in folders are opened by anybody, by whatever means, from now on (Linux)."""

    def __init__(self, root: Path) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK)
        folders = [root, *(p for p in root.rglob("*") if p.is_dir())]
        self.watches = {
            self.libc.inotify_add_watch(self.handle, os.fsencode(folder), OPENED): folder for folder in folders
        }

    def files(self) -> set[str]:
        """Since the last look."""
        found = set()
        while True:
            try:
                events = os.read(self.handle, 1 << 16)
            except BlockingIOError:
                return found
            while events:
                watch, _, _, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0").decode()
                if name and (self.watches[watch] / name).is_file():
                    found.add(name)
                events = events[16 + length :]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watches files as Linux can")
def test_the_second_prompt_and_a_second_workflow_do_not_touch_the_disk(bench):
    seed = "InfiniteTalkChunkSampler"
    opened = Opened(bench.server.base / "models")
    start = bench.bytes_read()
    bench.run(bench.job())
    first = bench.bytes_read() - start
    assert {WEIGHTS, ENCODER, "tiny_wan2.1_i2v.safetensors"} <= opened.files(), "or the test sees nothing"

    start = bench.bytes_read()
    bench.run(bench.job(**{seed: {"seed": 2}}))
    second = bench.bytes_read() - start
    assert opened.files() == set(), "model files opened by the second prompt"

    uses_text, hits = bench.loads(": read "), bench.loads("from the cache")
    start = bench.bytes_read()
    other = {"InfiniteTalkModelLoader": {"strength": 0.9, "attention": "sdpa"}, seed: {"seed": 3}}
    bench.run(bench.job("video_dubbing", **other))
    third = bench.bytes_read() - start
    assert opened.files() == set(), "model files opened by a second workflow"
    assert bench.loads(": read ") == uses_text and bench.loads("from the cache") == hits + 1
    # What is left are pictures, sound and the video itself.
    assert first > 15_000_000 and max(second, third) < 2_000_000, f"bytes read: {first}, {second}, {third}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watches files as Linux can")
def test_back_from_another_workflow_our_weights_are_still_there(bench):
    bench.run(bench.job())
    bench.run(UNRELATED)  # ComfyUI forgets what the first one has loaded
    assert "InfiniteTalk weights" in bench.cache() and ", in use" not in bench.cache()
    opened = Opened(bench.server.base / "models")
    bench.run(bench.job(InfiniteTalkChunkSampler={"seed": 4}))
    assert not {WEIGHTS, ENCODER} & opened.files()


def test_the_node_shows_what_is_loaded(bench):
    bench.run(bench.job())
    shown = bench.cache()
    assert f"InfiniteTalk weights {WEIGHTS}: 0.0" in shown and f"audio encoder {ENCODER}: 0.0" in shown
    assert "GB in RAM, 0.00 GB on the GPU" in shown
    assert "hits " in shown and "misses " in shown


def test_freeing_memory_empties_it(bench):
    bench.run(bench.job())
    assert "2 models" in bench.cache()
    uses_text = bench.loads(": read ")
    bench.server.free()
    end = time.monotonic() + 20
    while "0 models" not in bench.cache() and time.monotonic() < end:
        time.sleep(0.3)
    assert "0 models" in bench.cache()
    counts = bench.counts(-1)
    assert (counts["modules"], counts["patchers"]) == (0, 0)
    bench.run(bench.job(InfiniteTalkChunkSampler={"seed": 5}))
    assert bench.loads(": read ") == uses_text + 2, "and then both are read again"


def test_it_is_emptied_and_kept_small_on_request(bench):
    bench.run(bench.job())
    bench.run(UNRELATED)
    assert "0 models" in bench.cache(empty=True)
    bench.run(bench.job(InfiniteTalkChunkSampler={"seed": 6}))
    bench.cache(budget_gb=0.0)
    bench.run(UNRELATED)  # newer ComfyUI holds what earlier prompts made a while longer
    assert ", unused" not in bench.cache(budget_gb=0.0)
    bench.cache()  # the default again
    bench.run(bench.job(InfiniteTalkChunkSampler={"seed": 7}))
    assert "2 models" in bench.cache()


def test_a_file_that_is_replaced_is_loaded_again(bench):
    path = bench.patches / "changing.safetensors"
    shutil.copyfile(bench.patches / WEIGHTS, path)
    changed = {"InfiniteTalkModelLoader": {"infinitetalk": path.name}, "InfiniteTalkChunkSampler": {"seed": 8}}
    bench.run(bench.job(**changed))
    assert bench.loads(f"{path.name}: read ") == 1
    weights = {k: v * 0.5 for k, v in load_file(path).items()}
    save_file(weights, bench.patches / "new")
    (bench.patches / "new").replace(path)
    bench.run(bench.job(**changed))
    assert bench.loads(f"{path.name}: read ") == 2
    assert bench.cache().count(path.name) == 1, "the old state is gone"


def test_a_file_that_is_deleted_is_missed_in_one_sentence(bench):
    path = bench.patches / "passing.safetensors"
    shutil.copyfile(bench.patches / WEIGHTS, path)
    changed = {"InfiniteTalkModelLoader": {"infinitetalk": path.name}, "InfiniteTalkChunkSampler": {"seed": 9}}
    bench.run(bench.job(**changed))
    content = path.read_bytes()
    path.unlink()
    try:
        said = str(bench.server.run(bench.job(**changed), timeout=100).error)
        assert f"there is no {path.name!r} in models/" in said and "put the file there" in said
    except Exception as refused:  # a newer ComfyUI looks at the choices itself
        assert path.name in str(refused)
    path.write_bytes(content)
    bench.run(bench.job(**changed))


def test_after_twenty_jobs_nothing_of_ours_is_left_but_the_cache(bench):
    bench.cache(empty=True)

    def work(number: int) -> None:
        # Another strength loads the weights onto the MODEL anew, another seed samples anew.
        loader = {"strength": 0.5 + number % 3 / 4}
        job = bench.job(InfiniteTalkModelLoader=loader, InfiniteTalkChunkSampler={"seed": 100 + number})
        bench.run(job)

    seen = []
    for number in range(JOBS):
        work(number)
        if number in (2, JOBS - 1):
            seen.append(bench.counts(number))
    early, late = seen
    assert late["modules"] == early["modules"] > 0, (early, late)
    assert late["patchers"] == early["patchers"] > 0
    assert late["loaded"] <= early["loaded"]
    assert late["tensors"] <= early["tensors"] and late["bytes"] <= early["bytes"], (early, late)
    assert "0 models" in bench.cache(empty=True)
    empty = bench.counts(JOBS)
    assert (empty["modules"], empty["patchers"]) == (0, 0)
