"""Keeping the source: references, SDEdit, camera and pinned regions through the real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import SHORT_FRAMES
from PIL import Image

SIZE = {"size": "custom", "width": 64, "height": 64}
PRESET = {"preset": "custom", "steps": 2, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0, "apg": False}
CHUNKS = {"chunk_frames": 29, "context_frames": 5, "color_hold": 0.0, "crf": 0}
LUMA = np.array([0.2126, 0.7152, 0.0722])
SAMPLER, PICKER = "InfiniteTalkChunkSampler", "InfiniteTalkReferencePicker"


@pytest.fixture
def dub(server, small, short_voice):
    """`dub(extra nodes, sampler inputs, picker inputs)`: three chunks of video, dubbed: frames, report and outputs."""

    def run(nodes: dict[str, Any] | None = None, sampler: dict | None = None, picker: dict | None = None):
        workflow = small("video_dubbing")
        changes = {PICKER: {**SIZE, **(picker or {})}, "InfiniteTalkGuidance": PRESET}
        changes |= {SAMPLER: {**CHUNKS, **(sampler or {})}, "LoadAudio": {"audio": short_voice}}
        for node in workflow.values():
            node["inputs"].update(changes.get(node["class_type"], {}))
        workflow.update(nodes or {})
        result = server.follow(server.queue(workflow), timeout=300)
        assert result.status == "success", result.error
        by_type = {workflow[i]["class_type"]: out for i, out in result.outputs.items()}
        video = server.path_of(by_type[SAMPLER]["images"][0])
        report = json.loads(video.with_suffix(".json").read_text())
        return frames_of(video), report, by_type

    return run


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([f.to_ndarray(format="rgb24") for f in file.decode(video=0)])


def source_frames(samples: Path) -> np.ndarray:
    """The sample video as the pipeline sees it: 64 x 64."""
    frames = frames_of(samples / "portrait.mp4")
    return np.stack([np.asarray(Image.fromarray(f).resize((64, 64), Image.Resampling.BILINEAR)) for f in frames])


POLICIES = [
    *("still", "chunk start", "neighbor", "same chunk, random", "first or last of chunk", "distant"),
    *("first and last", "previous output", "adaptive"),
]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_makes_the_whole_video(dub, policy):
    frames, report, outputs = dub(picker={"policy": policy, "radius_seconds": 0.4})
    assert len(frames) == report["frames"] == SHORT_FRAMES
    assert report["policy"] == policy
    assert [c["chunk"] for c in report["chunks"]] == list(range(1, len(report["chunks"]) + 1))
    weights = [(model["model"], model["layers"]) for c in report["chunks"] for model in c["weights"]]
    assert set(weights) == {("WAN21", "all"), ("AudioAdapter", "all")}, "on the CPU all are where they are used"
    assert outputs[PICKER]["images"], "the picks are shown on the node"


def test_by_hand_uses_the_given_times(dub):
    times = ", ".join(str(0.2 * i) for i in range(3))
    _, report, _ = dub(picker={"policy": "by hand", "times": times})
    assert [c["reference_frames"] for c in report["chunks"]] == [[5 * i] for i in range(3)]


def test_sdedit_from_nothing_to_everything(dub, samples):
    """Strength 1 is the run without it, to the bit; strength 0 follows the source more than half does, and so on."""
    plain, _, _ = dub()

    def at(strength: float) -> np.ndarray:
        node = {"90": {"class_type": "InfiniteTalkSDEditStrength", "inputs": {"strength": strength, "per_chunk": ""}}}
        frames, report, _ = dub(node, {"sdedit": ["90", 0]})
        assert report["sdedit"] == [strength]
        return frames

    assert np.array_equal(at(1.0), plain)
    none, half = at(0.0), at(0.5)
    assert not np.array_equal(half, plain)
    assert np.abs(none.astype(int) - half).mean() > 1


def test_camera_of_the_source(dub):
    plain, _, _ = dub()
    nodes = {
        "91": {"class_type": "InfiniteTalkUni3CLoader", "inputs": {"uni3c": "tiny_uni3c.safetensors"}},
        "92": {
            "class_type": "InfiniteTalkUni3CCamera",
            "inputs": {"uni3c": ["91", 0], "strength": 1.0, "start": 0.0, "end": 1.0},
        },
    }
    moved, report, _ = dub(nodes, {"camera": ["92", 0]})
    assert report["camera"]["strength"] == 1.0
    assert len(moved) == len(plain)
    assert not np.array_equal(moved, plain)
    nodes["92"]["inputs"]["strength"] = 0.0
    assert np.array_equal(dub(nodes, {"camera": ["92", 0]})[0], plain)


def pin(mask_value: float) -> dict[str, Any]:
    return {
        "93": {"class_type": "SolidMask", "inputs": {"value": mask_value, "width": 384, "height": 384}},
        "94": {"class_type": "InfiniteTalkPinnedRegion", "inputs": {"mask": ["93", 0], "feather": 16.0}},
    }


def test_pinned_region_of_nothing_and_of_everything(dub, samples):
    plain, _, _ = dub()
    assert np.array_equal(dub(pin(1.0), {"pinned": ["94", 0]})[0], plain), "all free: as without a mask"
    kept, report, _ = dub(pin(0.0), {"pinned": ["94", 0]})
    assert all(c["outside_drift"] == 0 for c in report["chunks"])
    # Lightness only: H.264 halves the resolution of color.
    source = source_frames(samples)[: len(kept)]
    difference = np.abs(kept[: len(source)] @ LUMA - source @ LUMA).mean()
    assert difference < 1.5, f"all pinned: the source, but off by {difference:.2f}"


def test_all_of_it_together(dub):
    nodes = {
        "90": {"class_type": "InfiniteTalkSDEditStrength", "inputs": {"strength": 0.9, "per_chunk": "0.95, 0.8"}},
        "91": {"class_type": "InfiniteTalkUni3CLoader", "inputs": {"uni3c": "tiny_uni3c.safetensors"}},
        "92": {
            "class_type": "InfiniteTalkUni3CCamera",
            "inputs": {"uni3c": ["91", 0], "strength": 0.7, "start": 0.0, "end": 0.5},
        },
        **pin(1.0),
    }
    _, report, _ = dub(nodes, {"sdedit": ["90", 0], "camera": ["92", 0], "pinned": ["94", 0]})
    assert report["sdedit"] == [0.95, 0.8]
    assert report["pinned"]


@pytest.mark.parametrize(
    ("nodes", "sampler", "picker", "sentence"),
    [
        ({}, {}, {"policy": "by hand", "times": "0, 1"}, "2 reference times are given, but the speech needs 5 chunks"),
        ({}, {}, {"policy": "by hand", "times": "0, 1, 2, 9, 1"}, "reference time 4 is 9 s, outside the source"),
        ({}, {}, {"policy": "by hand", "times": "0, -1, 2, 1, 1"}, "reference time 2 is -1 s, outside the source"),
        ({}, {}, {"policy": "by hand", "times": "soon"}, "'soon' is not a time"),
        (
            {"90": {"class_type": "InfiniteTalkSDEditStrength", "inputs": {"strength": 0.5, "per_chunk": "0.5, 2"}}},
            {"sdedit": ["90", 0]},
            {},
            "the SDEdit strength must be between 0 and 1, got 2",
        ),
        (
            {
                "93": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 100, "height": 80}},
                "94": {"class_type": "InfiniteTalkPinnedRegion", "inputs": {"mask": ["93", 0], "feather": 0.0}},
            },
            {"pinned": ["94", 0]},
            {},
            "the mask is 100 x 80, but the source is 384 x 384",
        ),
        (
            {
                "91": {
                    "class_type": "InfiniteTalkUni3CLoader",
                    "inputs": {"uni3c": "tiny_infinitetalk_single.safetensors"},
                }
            },
            {"camera": ["92", 0]},
            {},
            "tiny_infinitetalk_single.safetensors is InfiniteTalk weights",
        ),
    ],
)
def test_bad_input(server, small, nodes, sampler, picker, sentence):
    if "91" in nodes:
        control = {"uni3c": ["91", 0], "strength": 1.0, "start": 0.0, "end": 1.0}
        nodes = {**nodes, "92": {"class_type": "InfiniteTalkUni3CCamera", "inputs": control}}
    workflow = small("video_dubbing")
    changes = {PICKER: {**SIZE, **picker}, SAMPLER: {**CHUNKS, **sampler}, "InfiniteTalkGuidance": PRESET}
    for node in workflow.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    workflow.update(nodes)
    result = server.follow(server.queue(workflow), timeout=120)
    assert result.status == "error"
    assert sentence in str(result.error)
