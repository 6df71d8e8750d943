"""The samples that a template asks for come into the input folder, and no template is without them."""

from __future__ import annotations

import errno
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
SAMPLES = REPO / "samples"
MOST_BYTES = 3_000_000
TEMPLATES = sorted(path.stem for path in (REPO / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def files(pack: Any) -> Any:
    return import_module(f"{pack.__name__}.nodes.host.media.sample_files")


def test_what_is_missing_is_placed_and_what_is_there_stays(files: Any, tmp_path: Path) -> None:
    (tmp_path / "voice.wav").write_bytes(b"mine")
    placed, problem = files.place_samples(["voice.wav", "portrait.png", "portrait.png"], SAMPLES, tmp_path)
    assert (placed, problem) == (["portrait.png"], "")
    assert (tmp_path / "voice.wav").read_bytes() == b"mine"
    assert (tmp_path / "portrait.png").read_bytes() == (SAMPLES / "portrait.png").read_bytes()
    assert files.place_samples(["portrait.png"], SAMPLES, tmp_path) == ([], "")


@pytest.mark.parametrize("name", ["README.md", "../pyproject.toml", "/etc/passwd", "", "no.png", "portrait.png\0", "."])
def test_nothing_but_samples_is_placed(files: Any, tmp_path: Path, name: str) -> None:
    assert files.place_samples([name], SAMPLES, tmp_path) == ([], "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("begun", [False, True], ids=["not begun", "begun"])
def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_left(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, begun: bool
) -> None:
    failure = OSError(number, os.strerror(number))

    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    monkeypatch.setattr(Path, "read_bytes" if begun else "open", fail)
    placed, problem = files.place_samples(["portrait.png"], SAMPLES, tmp_path)
    monkeypatch.undo()
    assert placed == [] and not list(tmp_path.iterdir())
    assert "portrait.png could not be put into ComfyUI's input folder" in problem and os.strerror(number) in problem


def test_a_missing_input_folder_is_said_too(files: Any, tmp_path: Path) -> None:
    placed, problem = files.place_samples(["portrait.png"], SAMPLES, tmp_path / "gone")
    assert placed == [] and "choose your own file" in problem


def test_a_dangling_link_is_left_alone(files: Any, tmp_path: Path) -> None:
    (tmp_path / "portrait.png").symlink_to(tmp_path / "elsewhere.png")
    assert files.place_samples(["portrait.png"], SAMPLES, tmp_path) == ([], "")
    assert not (tmp_path / "elsewhere.png").exists()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_asks_for_every_sample_that_it_names(name: str) -> None:
    saved = json.loads((REPO / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    named = {value for node in saved["nodes"] for value in node.get("widgets_values", []) if isinstance(value, str)}
    files = {value for value in named if value.endswith((".png", ".wav", ".mp4"))}
    assert files and files == set(saved["extra"]["infinitetalk"]["samples"])
    assert all((SAMPLES / file).is_file() for file in files)


def test_the_samples_are_small_and_in_the_archive() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < MOST_BYTES
    assert "samples/" not in (REPO / ".comfyignore").read_text().split()


def test_the_server_places_them_on_request(server: Any) -> None:
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def post(body: bytes) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            f"{server.url}/infinitetalk/samples", body, {"Content-Type": "application/json"}
        )
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    target = server.base / "input" / "two_people.png"
    target.unlink(missing_ok=True)
    assert post(b'{"files": ["two_people.png", "../x"]}') == (200, {"placed": ["two_people.png"], "problem": ""})
    assert target.read_bytes() == (SAMPLES / "two_people.png").read_bytes()
    for wrong in (
        b"",
        b"[]",
        b"{",
        b'{"files": 3}',
        b'{"files": [3]}',
        b'{"files": ' + b'["a"' + b',"a"' * 200 + b"]}",
    ):
        status, answer = post(wrong)
        assert status == 400 and "send" in answer["error"]
