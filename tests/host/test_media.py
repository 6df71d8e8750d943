"""The video file among ComfyUI's own nodes: saved as it is, its graph embedded or not, its pictures on request."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import folder_paths
import pytest
import torch
from comfy.cli_args import args

FORMATS = [(codec, bits) for codec in ("H.264", "HEVC", "AV1") for bits in ("8 bit", "10 bit")] + [
    ("lossless", "8 bit")
]
TAGS = {"prompt": '{"1": {}}', "workflow": '{"nodes": []}'}


@pytest.fixture
def core_video(pack) -> SimpleNamespace:
    names = ("segment", "format", "soundtrack", "writer")
    modules = {name: import_module(f"{pack.__name__}.infinitetalk_core.video.{name}") for name in names}
    return SimpleNamespace(**modules, sound=import_module(f"{pack.__name__}.infinitetalk_core.audio.sound"))


@pytest.fixture
def made(pack, core_video, tmp_path):
    """`made(codec, bits)`: a video as the Chunk Sampler writes it, in the format of the Video Format node."""

    def make(codec: str = "H.264", bits: str = "8 bit", frames: int = 40) -> Path:
        node = import_module(f"{pack.__name__}.nodes.video_format").VideoFormatNode
        try:
            (video_format,) = node.execute(codec, bits, 20).args
        except ValueError as missing:
            pytest.skip(str(missing))
        pictures = torch.rand(frames, 64, 96, 3, generator=torch.Generator().manual_seed(0))
        sound = core_video.sound.Sound(torch.rand(1, frames * 640) - 0.5, 16000)
        path = tmp_path / "video_00001_.mp4"
        with core_video.writer.VideoWriter(path, core_video.soundtrack.encode_sound(sound), metadata=TAGS) as writer:
            for part in pictures.split(29):
                writer.append(core_video.segment.encode_segment(part, video_format))
        return path

    return make


def _packets(path: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.size:
                found.setdefault(packet.stream.type, []).append(bytes(packet))
    return found


@pytest.mark.parametrize(("codec", "bits"), FORMATS)
def test_save_video_copies_every_packet(pack, made, tmp_path, codec, bits):
    from comfy_api.latest import InputImpl

    path = made(codec, bits)
    copy = tmp_path / "copy.mp4"
    InputImpl.VideoFromFile(str(path)).save_to(str(copy), metadata={"prompt": {"2": {}}})
    before = _packets(path)
    assert len(before["video"]) == 40 and before["audio"]
    assert _packets(copy) == before
    with av.open(str(copy)) as file:
        frame = next(file.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
        assert json.loads(file.metadata["prompt"]) == {"2": {}}
        assert file.metadata["workflow"] == TAGS["workflow"]


@pytest.mark.parametrize("disabled", [False, True])
def test_the_graph_is_embedded_unless_comfyui_was_told_not_to(pack, monkeypatch, disabled):
    monkeypatch.setattr(args, "disable_metadata", disabled)
    hidden = SimpleNamespace(prompt={"1": {"inputs": {}, "is_changed": "x"}}, extra_pnginfo={"workflow": {"nodes": []}})
    found = import_module(f"{pack.__name__}.nodes.host.media.video").workflow_metadata(hidden)
    assert found == ({} if disabled else {"prompt": '{"1": {"inputs": {}}}', "workflow": '{"nodes": []}'})


def test_pictures_come_only_on_request_and_their_memory_is_said_first(pack, made, monkeypatch, caplog):
    from comfy_api.latest import InputImpl

    frames = import_module(f"{pack.__name__}.nodes.host.media.video_frames")
    node = import_module(f"{pack.__name__}.nodes.video_frames").VideoFrames
    video = InputImpl.VideoFromFile(str(made()))
    with caplog.at_level("INFO", logger="infinitetalk"):
        (images,) = node.execute(video, 0.4, 0.8).args
    assert images.shape == (20, 64, 96, 3) and images.min() >= 0 and images.max() <= 1
    assert "0.0 GB of memory for 20 pictures of 96 x 64" in caplog.text
    monkeypatch.setattr(frames.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(ValueError, match=r"need 0\.0 GB of memory for 40 pictures of 96 x 64, and only 0\.0 GB"):
        node.execute(video, 0.0, 0.0)


def test_a_job_in_another_format_is_another_job(server, small) -> None:
    """Through the real server: the default, the same by the Video Format node (nothing new to make), and AV1."""
    workflow = small("talking_portrait")
    (sampler,) = (i for i, node in workflow.items() if node["class_type"] == "InfiniteTalkChunkSampler")
    for node in workflow.values():
        if node["class_type"] == "InfiniteTalkReferencePicker":
            node["inputs"].update(size="custom", width=64, height=64)
        elif node["class_type"] == "InfiniteTalkGuidance":
            node["inputs"].update(preset="custom", steps=1, text_scale=1.0, audio_scale=1.0, shift=7.0)
    workflow[sampler]["inputs"].update(chunk_frames=29, context_frames=5, seed=777, crf=18)

    def run(**video_format: Any) -> Path:
        if video_format:
            workflow["format"] = {"class_type": "InfiniteTalkVideoFormat", "inputs": video_format}
            workflow[sampler]["inputs"]["video_format"] = ["format", 0]
        result = server.follow(server.queue(workflow), timeout=300)
        assert result.status == "success", result.error
        return server.path_of(result.outputs[sampler]["images"][0])

    plain = run()
    assert run(codec="H.264", bit_depth="8 bit", crf=18) == plain, "taken as it is"
    other = run(codec="AV1", bit_depth="10 bit", crf=30)
    assert other != plain
    with av.open(str(other)) as file:
        assert file.streams.video[0].codec_context.codec.canonical_name == "av1"
        assert file.metadata["prompt"]
    assert json.loads(other.with_suffix(".json").read_text())["video_format"] == ["AV1", 10, 30]


def test_unfinished_runs_are_listed_and_old_ones_removed(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    node = import_module(f"{pack.__name__}.nodes.unfinished_runs").UnfinishedRuns
    assert "0 unfinished runs" in node.execute(30, False).args[0]
    for name in ("old", "young"):
        folder = tmp_path / "infinitetalk_runs" / name
        folder.mkdir(parents=True)
        notes = {"format": "infinitetalk run", "version": 1, "state": "unfinished", "video": f"{name}.mp4"}
        (folder / "run.json").write_text(json.dumps(notes))
    import os
    import time

    os.utime(tmp_path / "infinitetalk_runs" / "old" / "run.json", (0, time.time() - 40 * 86400))
    assert "old.mp4, 0.00 GB, 40.0 days old (old)" in node.execute(30, False).args[0]
    assert "(removed)" in node.execute(30, True).args[0]
    assert [p.name for p in (tmp_path / "infinitetalk_runs").iterdir()] == ["young"]
