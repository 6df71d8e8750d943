"""A job by paths alone, as a program queues it: from ComfyUI's own folders and from nowhere else."""

from __future__ import annotations

import json
import os
import shutil
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import numpy as np
import pytest
from conftest import SHORT_FRAMES
from media_cases import playlists, tone, write_interlaced, write_moving, write_mpo, write_sound, write_wav
from PIL import Image

SIZE = {"size": "custom", "width": 64, "height": 64}
PRESET = {"preset": "custom", "steps": 1, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0}
CHUNKS = {"chunk_frames": 29, "context_frames": 5, "color_hold": 0.0}


@pytest.fixture
def house(pack, tmp_path, monkeypatch) -> SimpleNamespace:
    """ComfyUI's folders, with files in them and a secret beside them."""
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
        (tmp_path / name / f"{name}.txt").write_text(name)
    (tmp_path / "input" / "clips").mkdir()
    (tmp_path / "input" / "clips" / "a b.txt").write_text("in a subfolder")
    (tmp_path / "input_2").mkdir()
    for folder in (tmp_path, tmp_path / "input_2"):
        (folder / "secret.txt").write_text("secret")
    return SimpleNamespace(root=tmp_path, inputs=import_module(f"{pack.__name__}.nodes.host.media.input_files"))


def test_files_in_comfyuis_folders_are_found(house):
    found = house.inputs.file_in_comfyui
    assert found("input.txt") == found(" input.txt [input]") == house.root / "input" / "input.txt"
    assert found("clips/a b.txt").read_text() == "in a subfolder"
    assert found("clips/../input.txt").read_text() == "input"
    assert found(str(house.root / "input" / "input.txt")).read_text() == "input"
    assert found("output.txt [output]").read_text() == found("output.txt[output]").read_text() == "output"
    assert found("temp.txt [temp]").read_text() == "temp"
    assert house.inputs.path_problem("input.txt") is True
    assert house.inputs.path_problem(None) is True, "a path that comes over a link is not known yet"


OUTSIDE = [
    "../secret.txt",
    "clips/../../secret.txt",
    "../input_2/secret.txt",
    "../secret.txt [output]",
    "../input/../secret.txt [temp]",
    "{root}/secret.txt",
    "{root}/output/output.txt",
    "/etc/passwd",
    "/etc/passwd [output]",
    "link.txt",
    "linked/secret.txt",
    "..",
]


@pytest.mark.parametrize("text", OUTSIDE)
def test_nothing_outside_is_opened(house, text):
    (house.root / "input" / "link.txt").symlink_to(house.root / "secret.txt")
    (house.root / "input" / "linked").symlink_to(house.root / "input_2")
    said = house.inputs.path_problem(text.format(root=house.root))
    assert "lies outside of ComfyUI's" in said and "\n" not in said
    for load in (house.inputs.load_source, house.inputs.load_voice):
        with pytest.raises(ValueError, match="lies outside of ComfyUI's"):
            load(text.format(root=house.root))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the path is empty"),
        (" [output]", "the path is empty"),
        ("nothing.mp4", "'nothing.mp4' does not exist in ComfyUI's input folder"),
        ("nothing.mp4 [output]", "does not exist in ComfyUI's output folder"),
        ("clips", "'clips' is a folder"),
        ("a\0b.mp4", "is no path"),
        ("loop", "is no path|does not exist"),
        ("x" * 5000, "is no path|does not exist"),
    ],
)
def test_a_path_that_is_no_file_is_refused_in_one_sentence(house, text, said):
    (house.root / "input" / "loop").symlink_to(house.root / "input" / "loop")
    with pytest.raises(ValueError, match=said) as refused:
        house.inputs.file_in_comfyui(text)
    assert "\n" not in str(refused.value)


def test_a_linked_input_folder_is_fine(house, monkeypatch):
    (house.root / "elsewhere").symlink_to(house.root / "input")
    monkeypatch.setattr(folder_paths, "input_directory", str(house.root / "elsewhere"))
    assert house.inputs.file_in_comfyui("input.txt").read_text() == "input"


def test_a_picture_and_a_video_are_told_by_what_is_in_them(house, samples):
    inputs = house.root / "input"
    shutil.copy(samples / "portrait.png", inputs / "a")
    shutil.copy(samples / "portrait.mp4", inputs / "b.png")
    image, video = house.inputs.load_source("a")
    assert video is None and image.shape[-1] == 3
    image, video = house.inputs.load_source("b.png")
    assert image is None and video.get_stream_source() == str(inputs / "b.png")
    with pytest.raises(ValueError, match=r"input\.txt"):
        house.inputs.load_source("input.txt")
    shutil.copy(samples / "voice.wav", inputs / "c")
    with pytest.raises(ValueError, match="no video in it"):
        house.inputs.load_source("c")


def test_a_gray_picture_of_16_bits_keeps_its_shades(house):
    shades = np.linspace(0, 65535, 64 * 48).reshape(48, 64)
    Image.fromarray(shades.astype(np.uint16)).save(house.root / "input" / "deep.png")
    Image.fromarray((shades / 65535).astype(np.float32)).save(house.root / "input" / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        image, _ = house.inputs.load_source(name)
        assert image.shape == (1, 48, 64, 3)
        assert np.abs(image[0].numpy() - shades[..., None] / 65535).max() < 1 / 255


def test_a_phones_picture_stands_upright(house):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to see it
    Image.fromarray(pixels).save(house.root / "input" / "p.png", exif=exif)
    image, _ = house.inputs.load_source("p.png")
    assert image.shape == (1, 30, 20, 3)
    assert image[0, :10].min() == 1 and image[0, 10:].max() == 0


@pytest.mark.parametrize("name", sorted(playlists(Path("x"))))
def test_a_playlist_opens_nothing_outside(house, name):
    """An m3u8 of an absolute path was played, although nothing outside the folders is to be opened."""
    write_sound(house.root / "secret.ts", tone(1), codec="aac", picture_seconds=1)
    (house.root / "input" / name).write_text(playlists(house.root / "secret.ts")[name])
    for load in (house.inputs.load_source, house.inputs.load_voice):
        with pytest.raises(ValueError, match="cannot be opened as a"):
            load(name)


def test_what_is_no_regular_file_is_refused_when_the_job_is_queued(house):
    (house.root / "input" / "folder.mp4").mkdir()
    assert "'folder.mp4' is a folder in" in house.inputs.path_problem("folder.mp4")
    if hasattr(os, "mkfifo"):
        os.mkfifo(house.root / "input" / "pipe.mp4")
        assert "'pipe.mp4' is a pipe in" in house.inputs.path_problem("pipe.mp4")


def test_eight_tracks_are_an_audio_of_eight_channels(house):
    write_wav(house.root / "input" / "eight.wav", tone(2, channels=8))
    audio = house.inputs.load_voice("eight.wav")
    assert audio["waveform"].shape == (1, 8, 96000) and audio["sample_rate"] == 48000


def test_an_animated_webp_is_a_video_all_the_way(pack, house):
    write_moving(house.root / "input" / "anim.webp")
    image, video = house.inputs.load_source("anim.webp")
    assert image is None
    source = import_module(f"{pack.__name__}.nodes.host.media.video").source_of(None, video)
    assert (source.length, source.height, source.width) == (50, 48, 64)
    assert abs(float(source.frame(49)[0, 0, 0]) * 255 - 200) < 2
    source.close()


def test_an_interlaced_film_gets_a_word_on_the_node(house, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(house.inputs, "write_on_node", said.append)
    write_interlaced(house.root / "input" / "v.mts")
    _, video = house.inputs.load_source("v.mts")
    assert video is not None and len(said) == 1 and said[0].startswith("v.mts is interlaced and read as it is stored")


def test_a_phones_jpeg_with_a_second_picture_is_one_image(house):
    write_mpo(house.root / "input" / "phone.jpg")
    image, video = house.inputs.load_source("phone.jpg")
    assert video is None and image.shape == (1, 160, 96, 3)


def _by_path(workflow: dict[str, Any], source: str, voice: str) -> dict[str, Any]:
    """The same job with both files named by their paths."""
    loads = {"LoadImage": "source", "LoadVideo": "source", "LoadAudio": "voice"}
    old = {i: loads[node["class_type"]] for i, node in workflow.items() if node["class_type"] in loads}
    workflow = {i: node for i, node in workflow.items() if i not in old}
    workflow["source"] = {"class_type": "InfiniteTalkLoadSource", "inputs": {"path": source}}
    workflow["voice"] = {"class_type": "InfiniteTalkLoadVoice", "inputs": {"path": voice}}
    for node in workflow.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in old:
                node["inputs"][name] = [old[value[0]], 0]
        if node["class_type"] == "InfiniteTalkReferencePicker":
            node["inputs"].update(image=["source", 0], video=["source", 1], **SIZE)
        elif node["class_type"] == "InfiniteTalkGuidance":
            node["inputs"].update(PRESET)
        elif node["class_type"] == "InfiniteTalkChunkSampler":
            node["inputs"].update(CHUNKS)
    return workflow


def _run(server, workflow: dict[str, Any]) -> Path:
    result = server.follow(server.queue(workflow), timeout=300)
    assert result.status == "success", result.error
    (out,) = (out for i, out in result.outputs.items() if workflow[i]["class_type"] == "InfiniteTalkChunkSampler")
    return server.path_of(out["images"][0])


def test_a_job_of_paths_alone_makes_the_video(server, small, short_voice):
    """A picture, then a video through the very same graph, then the result of the first as the source."""
    pictures = _run(server, _by_path(small("talking_portrait"), "portrait.png", short_voice))
    video = _run(server, _by_path(small("talking_portrait"), "portrait.mp4", short_voice))
    again = f"{pictures.relative_to(server.base / 'output').as_posix()} [output]"
    redubbed = _run(server, _by_path(small("talking_portrait"), again, again))
    assert len({pictures, video, redubbed}) == 3
    reports = [json.loads(path.with_suffix(".json").read_text()) for path in (pictures, video, redubbed)]
    assert [report["frames"] for report in reports] == [SHORT_FRAMES] * 3
    assert [report["policy"] for report in reports] == ["still", "chunk start", "chunk start"]


@pytest.mark.parametrize("path", ["../../secret.mp4", "nothing.mp4", ""])
def test_a_wrong_path_is_said_when_the_job_is_queued(server, small, path):
    from comfy_client import RefusedError

    with pytest.raises(RefusedError, match="ComfyUI's input folder"):
        server.queue(_by_path(small("talking_portrait"), path, "voice.wav"))


def test_a_video_is_never_made_a_batch_of_images(pack, house, samples, monkeypatch):
    """Neither by loading it, nor by picking frames of it."""
    shutil.copy(samples / "portrait.mp4", house.root / "input" / "v.mp4")
    _, video = house.inputs.load_source("v.mp4")

    def refuse(*_: object) -> None:
        raise AssertionError("every frame was read into memory")

    for name in ("get_components", "get_components_internal"):
        monkeypatch.setattr(type(video), name, refuse)
    source = import_module(f"{pack.__name__}.nodes.host.media.video").source_of(None, video)
    assert source.length > 1 and source.frame(source.length - 1).shape[-1] == 3
    source.close()
