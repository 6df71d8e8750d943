"""Progress over the whole job: one bar over all chunks, a line of words, a preview picture."""

from __future__ import annotations

import io
import json
import re
import struct
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace

import comfy.utils
import pytest
import torch
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


def test_a_chunk_made_again_goes_back_on_the_bar_and_never_beyond(pack, monkeypatch):
    """Its steps are those of the chunk, however often it is made; the words say which try it is."""
    progress, watching = (
        import_module(f"{pack.__name__}.nodes.host.sampling.{name}") for name in ("progress", "watching")
    )
    plan, lips, tries = (
        import_module(f"{pack.__name__}.infinitetalk_core.chunks.{name}") for name in ("plan", "lips", "lip_tries")
    )
    shown, words = [], []
    # Newer ComfyUI's own bar leaves out reports that follow each other too quickly.
    bar = SimpleNamespace(update_absolute=lambda value, total, preview=None: shown.append((value, total)))
    monkeypatch.setattr(comfy.utils, "ProgressBar", lambda total: bar)
    monkeypatch.setattr(progress, "write_on_node", words.append)
    monkeypatch.setattr(progress, "say", words.append)
    model = SimpleNamespace(load_device=torch.device("cpu"), model=SimpleNamespace(latent_format=None))
    monkeypatch.setattr(progress.latent_preview, "get_previewer", lambda *_: None)
    listener, latents = progress.JobProgress(model, 2, STEPS, watching.WatchedRun()), torch.zeros(1, 16, 3, 4, 4)
    bad = lips.ChunkLips((lips.SpeakerLips(lips.LipSync(0.1, 0)),))
    for chunk in plan.plan_chunks(100, 61, 5):
        for attempt in range(3):
            if attempt:
                listener.chunk_made_again(tries.LipTries(chunk, 7, (0.1,) * attempt, 0, bad))
            for step in range(STEPS):
                listener.after_step(chunk, step, latents)
    assert {total for _, total in shown} == {2 * STEPS} and max(value for value, _ in shown) == 2 * STEPS
    values = [value for value, _ in shown]
    assert values == [1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6]
    assert words[2].startswith("chunk 1/2, step 3/3") and words[4].startswith("chunk 1/2 (try 2), step 1/3")
    assert words[11].startswith("chunk 2/2, step 1/3") and words[-1].startswith("chunk 2/2 (try 3), step 3/3")
    assert words[3] == "chunk 1: lips 0.10; making it again"


def test_without_the_library_it_is_said_once_on_the_node(server, small):
    workflow = small("talking_portrait")
    for node in workflow.values():
        if node["class_type"] == "InfiniteTalkReferencePicker":
            node["inputs"].update(size="custom", width=64, height=64)
        if node["class_type"] == "InfiniteTalkGuidance":
            node["inputs"].update(preset="custom", steps=1, text_scale=1.0, audio_scale=1.0)
        if node["class_type"] == "InfiniteTalkChunkSampler":
            node["inputs"].update(chunk_frames=61, context_frames=5, seed=12, retry_lips=3)
    seen = len(server.log())
    result = server.follow(server.queue(workflow), timeout=300)
    assert result.status == "success", result.error
    assert server.log()[seen:].count("retry_lips has no effect on chunk 1") == 1
