"""Progress over the whole job: one bar over all chunks, a line of words, a preview picture."""

from __future__ import annotations

import io
import json
import re
import struct
from itertools import pairwise

import pytest
from PIL import Image

# The first four bytes of ComfyUI's binary websocket messages.
TEXT, PREVIEW_WITH_METADATA = 3, 4
STEPS = 3


@pytest.fixture(scope="module")
def job(server, small):
    """A job of several chunks, and the binary messages that came while it ran."""
    workflow = small("talking_portrait")
    for node in workflow.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "InfiniteTalkReferencePicker":
            inputs.update(size="custom", width=64, height=64)
        if kind == "InfiniteTalkGuidance":
            inputs.update(preset="custom", steps=STEPS, text_scale=1.0, audio_scale=1.0)
        if kind == "InfiniteTalkChunkSampler":
            inputs.update(chunk_frames=61, context_frames=5, seed=11)
    node = next(i for i, n in workflow.items() if n["class_type"] == "InfiniteTalkChunkSampler")
    before = len(server.previews())
    result = server.follow(server.queue(workflow), timeout=300)
    assert result.status == "success", result.error
    return node, result, server.previews()[before:]


def test_one_bar_over_all_chunks(job):
    node, result, _ = job
    steps = [m for m in result.of_type("progress") if m["node"] == node]
    (total,) = {m["max"] for m in steps}
    assert total == 3 * STEPS, "123 frames in chunks of 61 with 5 context frames are three chunks"
    values = [m["value"] for m in steps]
    assert values[-1] == total
    assert all(b >= a for a, b in pairwise(values))
    # Newer ComfyUI leaves out reports that follow each other too quickly.
    assert len(set(values)) > total // 2


def test_words_say_chunk_step_and_time_left(job):
    node, _, binary = job
    lines = []
    for message in binary:
        (kind, length) = struct.unpack(">II", message[:8])
        if kind == TEXT and message[8 : 8 + length].decode() == node:
            lines.append(message[8 + length :].decode())
    lines, last = lines[:-1], lines[-1]
    assert len(lines) == 3 * STEPS and last.startswith("Done: 4.92 s in ")
    assert lines[0].startswith("chunk 1/3, step 1/3, ") and " left" not in lines[0], "one step tells nothing"
    assert all(line.endswith(" left") for line in lines[1:])
    match = re.fullmatch(r"chunk 3/3, step 3/3, (.+) s of video, memory .+ [MG]B, disk (\d+) MB, \d+ s left", lines[-1])
    assert match, lines[-1]
    assert float(match[1]) == pytest.approx((61 + 56) / 25, abs=0.05), "two chunks are finished"


def test_previews_are_pictures_of_this_node(job):
    node, _, binary = job
    shown = []
    for message in binary:
        kind, length = struct.unpack(">II", message[:8])
        if kind == PREVIEW_WITH_METADATA:
            shown.append((json.loads(message[8 : 8 + length])["node_id"], message[8 + length :]))
    assert len(shown) == 4, "the reference, then the newest frame of each of three chunks"
    assert {n for n, _ in shown} == {node}
    picture = Image.open(io.BytesIO(shown[-1][1]))
    assert picture.getextrema() != ((0, 0), (0, 0), (0, 0)), "not black"
