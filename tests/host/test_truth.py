"""What the sampler says and shows in a real server: done, stopped and kept, already made, first chunk only."""

from __future__ import annotations

import copy
import json
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

TEXT = 3  # the first four bytes of ComfyUI's binary websocket messages
SAMPLER = "InfiniteTalkChunkSampler"
CHANGES = {
    "InfiniteTalkReferencePicker": {"size": "custom", "width": 64, "height": 64},
    "InfiniteTalkGuidance": {"preset": "custom", "steps": 30, "text_scale": 1.0, "audio_scale": 1.0},
    SAMPLER: {"chunk_frames": 29, "context_frames": 5},  # 72 frames of short_voice: 29, 24 and 19
}


class Node:
    """The sampler of a small job in a server, and what was said on it."""

    def __init__(self, server: Any, workflow: dict[str, Any]) -> None:
        self.server, self.workflow = server, workflow
        self.id = next(i for i, node in workflow.items() if node["class_type"] == SAMPLER)

    def job(self, **inputs: Any) -> dict[str, Any]:
        workflow = copy.deepcopy(self.workflow)
        workflow[self.id]["inputs"].update(inputs)
        return workflow

    def run(self, stop_at: str | None = None, **inputs: Any) -> tuple[list[str], Any]:
        """Run the job; what was said on the node, and the result. stop_at: interrupt when this is said."""
        before = len(self.server.previews())
        prompt = self.server.queue(self.job(**inputs))
        end = time.monotonic() + 120
        while stop_at and not any(text.startswith(stop_at) for text in self.said(before)):
            assert time.monotonic() < end, self.said(before)
            time.sleep(0.01)
        if stop_at:
            self.server.interrupt()
        result = self.server.follow(prompt, timeout=240)
        return self.said(before), result

    def said(self, before: int) -> list[str]:
        found = []
        for message in self.server.previews()[before:]:
            kind, length = struct.unpack(">II", message[:8])
            if kind == TEXT and message[8 : 8 + length].decode() == self.id:
                found.append(message[8 + length :].decode())
        return found


@pytest.fixture(scope="module")
def node(server: Any, short_voice: str, small: Callable[[str], dict[str, Any]]) -> Node:
    workflow = small("talking_portrait")
    for each in workflow.values():
        each["inputs"].update(CHANGES.get(each["class_type"], {}))
        if each["class_type"] == "LoadAudio":
            each["inputs"]["audio"] = short_voice
    return Node(server, workflow)


def video_of(output: dict[str, Any]) -> str:
    (file,) = output["images"]
    return file["filename"]


def frames_in(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def report_of(result: Any, node: Node) -> dict[str, Any]:
    (file,) = result.outputs[node.id]["images"]
    return json.loads(node.server.path_of(file).with_suffix(".json").read_text())


def test_from_an_interrupt_to_a_job_that_is_already_made(node: Node) -> None:
    for _ in range(2):  # the second time the unfinished video is the same, to the bit
        said, stopped = node.run(stop_at="chunk 3/3", seed=1)
        assert stopped.status == "interrupted"
        assert said[-1] == "Stopped. 2 of 3 chunks kept; press Run to go on"
        (shown,) = [message for message in stopped.of_type("executed") if message["node"] == node.id]
        assert shown["output"]["text"] == [said[-1]] and video_of(shown["output"]).endswith("_interrupted.mp4")
        assert frames_in(node.server.path_of(shown["output"]["images"][0])) >= 29, "the player shows what is finished"

    said, done = node.run(seed=1)
    assert any(text.startswith("continuing at chunk 3 of 3 (2 of 3 chunks are there from before)") for text in said)
    assert re.fullmatch(
        r"Done: 2\.88 s in \d+ s, 3 chunks \(2 there from before\), largest join \d+\.\d, color drift \d+\.\d", said[-1]
    )
    assert done.outputs[node.id]["text"] == [said[-1]]
    readable = node.server.path_of(done.outputs[node.id]["images"][0]).with_suffix(".report.txt").read_text()
    assert "Finished: 2.88 s of 64 x 64, 3 chunks." in readable and "Made with steps 30" in readable
    assert "72 frames of 64 x 64 in 3 chunks of 30 steps" in node.server.log()

    said, again = node.run(seed=1, keep_intermediates=True)  # runs the node, and is no other video
    assert said[-1] == "Already made; change the seed or switch start_over on"
    assert video_of(again.outputs[node.id]) == video_of(done.outputs[node.id])


def test_an_interrupt_in_the_first_chunk_promises_nothing(node: Node) -> None:
    said, stopped = node.run(stop_at="chunk 1/3, step 2", seed=2)
    assert stopped.status == "interrupted" and said[-1].startswith("Stopped. No chunk was finished yet")
    assert not [message for message in stopped.of_type("executed") if message["node"] == node.id]


def test_the_first_chunk_only_and_then_the_rest(node: Node) -> None:
    said, first = node.run(seed=3, first_chunk_only=True)
    assert re.fullmatch(
        r"First chunk only: 1\.16 s in \d+ s, 1 of 3 chunks, color drift .+ press Run to go on", said[-1]
    )
    report = report_of(first, node)
    assert (report["first_chunk_only"], report["complete"], len(report["chunks"])) == (True, False, 1)
    path = node.server.path_of(first.outputs[node.id]["images"][0])
    assert frames_in(path) == 29 and "First chunk only, of 3 chunks" in path.with_suffix(".report.txt").read_text()
    said, whole = node.run(seed=3)
    assert any(text.startswith("continuing at chunk 2 of 3 (1 of 3 chunks is there from before)") for text in said)
    made = [text for text in said if text.startswith("chunk ")]
    assert made[0].startswith("chunk 2/3, step 1/30")
    report = report_of(whole, node)
    assert (report["first_chunk_only"], report["complete"], len(report["chunks"])) == (False, True, 3)
    assert path.exists(), "the try stays as a file of its own"


def test_time_left_is_told_from_the_second_step_on(node: Node) -> None:
    said, _ = node.run(seed=4)
    steps = [text for text in said if text.startswith("chunk ")]
    assert " left" not in steps[0] and all(text.endswith(" left") for text in steps[1:])


def test_one_is_not_written_as_many(node: Node) -> None:
    workflow = node.workflow
    guidance = next(each["inputs"] for each in workflow.values() if each["class_type"] == "InfiniteTalkGuidance")
    before, guidance["steps"] = guidance["steps"], 1
    try:
        said, _ = node.run(seed=5, chunk_frames=81)
    finally:
        guidance["steps"] = before
    assert "72 frames of 64 x 64 in 1 chunk of 1 step\n" in node.server.log()
    assert re.fullmatch(r"Done: 2\.88 s in \d+ s, 1 chunk, color drift .+", said[-1])
