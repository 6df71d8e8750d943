"""The workflows that come with the pack: one graph in two formats, served by ComfyUI, and they make videos."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

av = pytest.importorskip("av")
np = pytest.importorskip("numpy")

REPO = Path(__file__).resolve().parents[2]
WORKFLOWS = REPO / "workflows"
# By name of the API file, the file that a user sees.
TITLES = {
    "talking_portrait": "Graph 1 - Talking portrait, lip sync avatar",
    "video_dubbing": "Graph 2 - Dub a video, lip sync",
    "two_speakers": "Graph 3 - Two people talking",
    "dub_keep_camera_uni3c": "Graph 4 - Dub, camera kept by Uni3C",
    "dub_keep_camera_sdedit": "Graph 5 - Dub, held to the source by SDEdit",
    "dub_face_only": "Graph 6 - Dub, only the face changes",
    "camera_path_portrait": "Graph 7 - Talking portrait, camera path",
}
NAMES = tuple(TITLES)
APPS = ("Talking picture.app", "Dub a video.app", "Two people.app")
PARTS = "Graph 8 - Files by path, step cache, wav2vec"
SHOWN = (*APPS, *TITLES.values(), PARTS)
HEADLESS = "dub_by_path"  # for programs: no graph to look at
# These make several chunks; the others one, since all chunks after the first are made alike.
LONG = ("talking_portrait", "video_dubbing", "two_speakers")
FPS = 25
SIZE = 64
THUMBNAIL_BYTES = 60_000
AAC_BLOCK = 1024  # samples; the last block is whole
# Widgets that exist in the frontend only.
FRONTEND_ONLY = ("control_after_generate", "upload", "audioUI")
NOTES = ("MarkdownNote", "Note")


def read(name: str, folder: Path = WORKFLOWS) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def quick(workflow: dict[str, Any]) -> dict[str, Any]:
    """The same workflow with a small picture and few steps, made here whatever other tests have made on this server."""
    for node in workflow.values():
        if node["class_type"] == "InfiniteTalkReferencePicker":
            node["inputs"].update(size="custom", width=SIZE, height=SIZE)
        if node["class_type"] == "InfiniteTalkGuidance":
            node["inputs"].update(preset="distill LoRA (4 steps)")
        if node["class_type"] == "InfiniteTalkChunkSampler":
            node["inputs"].update(start_over=True)
    return workflow


def to_api(saved: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """A saved graph in API format, by the rules of the frontend: values in the order of the widgets."""
    origins = {link[0]: [str(link[1]), link[2]] for link in saved["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, origins, info[node["type"]])}
        for node in saved["nodes"]
        if node["type"] not in NOTES
    }


def _inputs(node: dict[str, Any], origins: dict[int, list[Any]], info: dict[str, Any]) -> dict[str, Any]:
    options = {k: spec[1] for group in info["input"].values() for k, spec in group.items()}
    names = []
    for name in (slot["name"] for slot in node["inputs"] if "widget" in slot):
        names += [name, "control_after_generate"] if options.get(name, {}).get("control_after_generate") else [name]
    values = dict(zip(names, node["widgets_values"], strict=True))
    links = {slot["name"]: origins[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
    return {k: v for k, v in {**values, **links}.items() if k not in FRONTEND_ONLY}


def without_titles(workflow: dict[str, Any]) -> dict[str, Any]:
    return {i: {"class_type": node["class_type"], "inputs": node["inputs"]} for i, node in workflow.items()}


def test_each_workflow_has_both_formats_and_a_thumbnail() -> None:
    for folder, suffix in ((WORKFLOWS, ".json"), (WORKFLOWS / "api", ".json"), (WORKFLOWS, ".jpg")):
        names = [*NAMES, HEADLESS] if folder.name == "api" else SHOWN
        assert sorted(p.stem for p in folder.glob(f"*{suffix}")) == sorted(names), f"{folder}/*{suffix}"
    assert all((WORKFLOWS / f"{name}.jpg").stat().st_size <= THUMBNAIL_BYTES for name in SHOWN)


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_the_same_graph(name: str) -> None:
    from object_info import stored

    assert to_api(read(TITLES[name]), stored()) == without_titles(read(name, WORKFLOWS / "api"))


def test_the_files_are_what_the_tool_writes() -> None:
    import workflow_designs
    from make_workflows import files
    from object_info import stored

    designs = workflow_designs
    assert {design.name: design.title for design in designs.GRAPHS} == TITLES
    assert [*(design.title for design in designs.APPS), designs.PARTS.title] == [*APPS, PARTS]
    assert designs.HEADLESS.name == HEADLESS
    for design in (*designs.APPS, *designs.GRAPHS, designs.PARTS, designs.HEADLESS):
        for path, text in files(design, stored()).items():
            assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python tools/make_workflows.py"


@pytest.mark.parametrize("name", SHOWN)
def test_links_lead_from_and_to_slots_of_their_type(name: str) -> None:
    saved = read(name)
    nodes = {node["id"]: node for node in saved["nodes"]}
    for number, origin, output, target, slot, kind in saved["links"]:
        start, end = nodes[origin]["outputs"][output], nodes[target]["inputs"][slot]
        assert number in start["links"] and end["link"] == number
        assert start["type"] == end["type"] == kind


@pytest.mark.parametrize("name", SHOWN)
def test_every_model_file_says_where_it_can_be_had(name: str) -> None:
    for node in read(name)["nodes"]:
        files = [v for v in node.get("widgets_values", []) if str(v).endswith(".safetensors")]
        models = node["properties"].get("models", [])
        assert [model["name"] for model in models] == files, node["type"]
        for model in models:
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith("/" + model["name"])
            assert model["directory"]


@pytest.mark.parametrize("name", SHOWN)
def test_nodes_do_not_lie_on_each_other_and_lie_in_a_group(name: str) -> None:
    saved, title = read(name), 30
    boxes = {n["id"]: (*n["pos"], *n["size"]) for n in saved["nodes"] if n["type"] not in NOTES}
    frames = [tuple(group["bounding"]) for group in saved["groups"]]
    for a, (x, y, w, h) in boxes.items():
        assert any(f[0] <= x and f[1] <= y - title and x + w <= f[0] + f[2] and y + h <= f[1] + f[3] for f in frames), a
        for b, (x2, y2, w2, h2) in boxes.items():
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 - title or y2 + h2 <= y - title
            assert a == b or apart, f"nodes {a} and {b} overlap"


@pytest.mark.parametrize("name", NAMES)
def test_it_makes_a_video_as_long_as_the_voice(name: str, server: Any, small: Callable, short_voice: str) -> None:
    workflow = quick(small(name))
    loaders = [node["inputs"] for node in workflow.values() if node["class_type"] == "LoadAudio"]
    for inputs in loaders if name not in LONG else ():
        inputs["audio"] = short_voice
    result = server.run(workflow, timeout=300)
    assert result.status == "success", result.error and result.error.get("exception_message")
    videos = [server.path_of(file) for file in result.files() if file["filename"].endswith(".mp4")]
    assert len(videos) == 1, "one video is shown"
    check_video(videos[0], [server.base / "input" / inputs["audio"] for inputs in loaders])
    with av.open(str(videos[0])) as file:
        kept = json.loads(file.metadata["prompt"])
    assert without_titles(kept) == without_titles(workflow), "the workflow can be read from the video"


@pytest.mark.parametrize("name", [*APPS, PARTS])
def test_a_graph_without_an_api_file_makes_a_video_too(
    name: str, server: Any, small: Callable, short_voice: str
) -> None:
    from object_info import stored

    workflow = quick(small(to_api(read(name), stored())))
    for node in workflow.values():
        node["inputs"].update({k: short_voice for k, v in node["inputs"].items() if str(v).endswith(".wav")})
    result = server.run(workflow, timeout=300)
    assert result.status == "success", result.error and result.error.get("exception_message")
    assert len([file for file in result.files() if file["filename"].endswith(".mp4")]) == 1


@pytest.mark.parametrize("name", APPS)
def test_an_app_asks_for_inputs_that_its_nodes_have_and_shows_the_video(name: str) -> None:
    saved = read(name)
    nodes = {str(node["id"]): node for node in saved["nodes"]}
    form = saved["extra"]["linearData"]
    assert saved["extra"]["linearMode"] is True
    for number, widget, *_ in form["inputs"]:
        (slot,) = (slot for slot in nodes[number]["inputs"] if slot["name"] == widget)
        assert slot["widget"]["name"] == widget and slot["label"], "each field has a name of its own"
    assert [nodes[number]["type"] for number in form["outputs"]] == ["InfiniteTalkChunkSampler"]
    assert ("2", "quality") in {(number, widget) for number, widget, *_ in form["inputs"]}


@pytest.mark.parametrize("name", SHOWN)
def test_favorites_are_inputs_of_nodes(name: str) -> None:
    saved = read(name)
    slots = {(str(node["id"]), slot["name"]) for node in saved["nodes"] for slot in node["inputs"]}
    favorites = saved["extra"]["favoritedWidgets"]["favorites"]
    assert favorites and {(each["nodeLocatorId"], each["widgetName"]) for each in favorites} <= slots


HAN = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize("name", SHOWN)
def test_it_is_there_in_chinese_and_its_note_says_sizes_and_memory(name: str) -> None:
    saved = read(name)
    chinese = saved["extra"]["infinitetalk"]["zh"]
    shown = {group["title"] for group in saved["groups"]} | {
        node["title"] for node in saved["nodes"] if "title" in node
    }
    shown |= {slot["label"] for node in saved["nodes"] for slot in node["inputs"] if "label" in slot}
    assert chinese["texts"].keys() == shown
    assert all(HAN.search(text) for text in chinese["texts"].values())
    (note,) = (node["widgets_values"][0] for node in saved["nodes"] if node["type"] in NOTES)
    sizes = [each["url"] for node in saved["nodes"] for each in node["properties"].get("models", [])]
    for text in (note, chinese["note"]):
        assert all(url in text for url in sizes) and text.count(" GB") > len(sizes), "each file with its size, memory"
    assert HAN.search(chinese["note"]) and not HAN.search(note)


def check_video(video: Path, voices: list[Path]) -> None:
    """Decodable to its end, 25 fps, as many frames as the voices last, their sound in place, not black."""
    recordings = [sound(path) for path in voices]
    seconds = sum(len(samples) / rate for samples, rate in recordings)
    pictures, rate, start = frames(video)
    assert rate == FPS
    assert len(pictures) == int(seconds * FPS + 0.5)
    assert pictures[0].shape == (SIZE, SIZE, 3)
    assert all(8 < picture.mean() < 247 and picture.std() > 4 for picture in pictures), "neither black, white nor flat"
    heard, heard_rate = sound(video)
    assert abs(len(heard) / heard_rate - seconds) < 1 / FPS + AAC_BLOCK / heard_rate
    assert abs(offset(heard, heard_rate, *recordings[0]) - start) < 1 / FPS, "the voice is in time with the picture"


def frames(video: Path) -> tuple[list[Any], float, float]:
    """All frames (H, W, 3), frames a second, and the time of the first."""
    with av.open(str(video)) as file:
        stream = file.streams.video[0]
        decoded = list(file.decode(stream))
        steps = {round(float(b.time - a.time) * FPS, 3) for a, b in pairwise(decoded)}
        assert steps == {1.0}, "a frame each 1/25 s"
        return [f.to_ndarray(format="rgb24") for f in decoded], float(stream.average_rate), float(decoded[0].time)


def sound(path: Path) -> tuple[Any, int]:
    """Mono samples from time 0 on, samples a second."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout="mono")
        parts, first = [], None
        for frame in file.decode(stream):
            first = frame.time if first is None else first
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        silence = np.zeros(max(0, round((first or 0.0) * stream.rate)), np.float32)
        return np.concatenate([silence, *parts]), stream.rate


def offset(heard: Any, heard_rate: int, said: Any, said_rate: int) -> float:
    """How many seconds later than in `said` the loudness changes in `heard`: by correlation of 1 ms envelopes."""
    a, b = envelope(heard, heard_rate), envelope(said, said_rate)
    length = min(len(a), len(b))
    correlation = np.correlate(a[:length] - a.mean(), b[:length] - b.mean(), mode="full")
    return float(correlation.argmax() - (length - 1)) / 1000


def envelope(samples: Any, rate: int) -> Any:
    """Loudness in each millisecond."""
    edges = (np.arange(int(len(samples) * 1000 / rate) + 1) * rate / 1000).astype(int)
    return np.sqrt(np.add.reduceat(samples.astype(np.float64) ** 2, edges[:-1]) / (rate / 1000))


@pytest.mark.parametrize("name", SHOWN)
def test_comfyui_offers_it_as_a_template(name: str, server: Any) -> None:
    offered = json.loads(server.get("/workflow_templates"))["infinitetalk"]
    assert sorted(offered) == sorted(SHOWN)
    assert json.loads(server.get(f"/api/workflow_templates/infinitetalk/{quote(name)}.json")) == read(name)
    assert server.get(f"/api/workflow_templates/infinitetalk/{quote(name)}.jpg")[:2] == b"\xff\xd8"
