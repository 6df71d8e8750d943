"""The name of the video: inside ComfyUI's output folder, visible, short enough, with ComfyUI's tokens filled in."""

from __future__ import annotations

import re
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import folder_paths
import pytest


@pytest.fixture
def video(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that chooses file names; its output folder is tmp_path."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return import_module(f"{pack.__name__}.nodes.host.media.video")


def path(video: Any, prefix: str) -> str:
    return video.output_path(prefix, 832, 480).relative_to(video.output_folder()).as_posix()


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("video/InfiniteTalk", "video/InfiniteTalk_00001_.mp4"),
        ("take 1, at 100%", "take 1, at 100%_00001_.mp4"),
        ("50% a, 60% b", "50% a, 60% b_00001_.mp4"),
        ("a/../b", "b_00001_.mp4"),
        ("video/", "video_00001_.mp4"),
        ("电影/台词 v1.2", "电影/台词 v1.2_00001_.mp4"),
        ("infinitetalk_runs", "infinitetalk_runs_00001_.mp4"),
        ("%width%x%height%/a%", "832x480/a%_00001_.mp4"),
    ],
)
def test_names_as_they_were(video: Any, prefix: str, name: str) -> None:
    assert path(video, prefix) == name


def test_the_servers_own_tokens(video: Any) -> None:
    now = datetime.now()
    found = path(video, "%year%-%month%-%day%/%hour%.%minute%.%second%")
    assert re.fullmatch(rf"{now:%Y-%m-%d}/\d\d\.\d\d\.\d\d_00001_\.mp4", found)


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        *(
            (prefix, "has no name for the file")
            for prefix in ("", " ", ".", "./", "a/..", "video/ ", ".hidden", "a/.b")
        ),
        *(
            (prefix, "leads out")
            for prefix in ("..", "../a", "a/../../b", "/tmp/a", "C:/a", "c:\\a", "\\\\host\\a", "~/a")
        ),
        *((prefix, "no file name has") for prefix in ("a\0b", "a\nb", "a\x7f", "a\ud800b", "\x1b[0m")),
        *((prefix, "folders in each other") for prefix in ("a/" * 1000 + "b", "a/" * 32 + "b")),
        *((prefix, "bytes long, too long") for prefix in ("a" * 201, "a" * 201 + "/b", "é" * 101, "a/" + "b" * 5000)),
        *((prefix, "unfinished jobs are kept") for prefix in ("infinitetalk_runs/a", "x/../InfiniteTalk_Runs/key/a")),
        *(
            (prefix, "which nothing has filled in")
            for prefix in (
                "%date:yyyy-MM-dd%/a",
                "a%date%",
                "%date:yyyy/MM/dd%",
                "%KSampler.seed%",
                "a_%Load Image.image%_b",
            )
        ),
    ],
)
def test_names_that_no_video_gets(video: Any, tmp_path: Path, prefix: str, words: str) -> None:
    for call in (video.check_name, lambda prefix: video.output_path(prefix, 64, 64)):
        with pytest.raises(ValueError, match=words) as refused:
            call(prefix)
        assert type(refused.value).__name__ == "InputError"
        assert str(refused.value).isprintable() and len(str(refused.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_the_sampler_refuses_a_name_before_any_work(pack: Any, video: Any) -> None:
    sampler = import_module(f"{pack.__name__}.nodes.chunk_sampler").ChunkSampler
    inputs = {i.id: None for i in sampler.define_schema().inputs if not i.optional}
    with pytest.raises(ValueError, match="which nothing has filled in"):
        sampler.execute.__wrapped__(
            sampler, **{k: inputs.get(k) for k in ("model", "vae", "speech", "reference")}, filename_prefix="%a.b%"
        )
