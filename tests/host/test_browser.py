"""The pack in ComfyUI's real frontend, in headless Chromium, as a user meets it.

Screenshots of each step are kept in .test-output/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from browser import SECONDS, Window, chromium, make_quick, modes, open_window

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

REPO = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (REPO / "workflows").glob("*.json"))
CATEGORY = "InfiniteTalk lip sync"  # of the templates
PORTRAIT = "Graph 1 - Talking portrait, lip sync avatar"
CAMERA_PATH = "Graph 7 - Talking portrait, camera path"
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM")


@pytest.fixture(scope="module", params=modes())
def window(server: Any, request: pytest.FixtureRequest) -> Iterator[Window]:
    with open_window(server.url, request.param) as found:
        yield found


def too_near(boxes: list[tuple[str, float, float, float, float]]) -> list[tuple[str, str]]:
    """Pairs of nodes that cover each other or nearly touch: a node grows when it gets another input."""
    gap = 8
    return [
        (one, other)
        for (one, x0, y0, x1, y1), (other, left, top, right, bottom) in combinations(boxes, 2)
        if x0 < right + gap and left < x1 + gap and y0 < bottom + gap and top < y1 + gap
    ]


def of_server(prompt: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """A prompt without titles and without what only the frontend knows (players, upload buttons)."""
    known = {name: {k for g in node["input"].values() for k in g} for name, node in info.items()}
    return {
        i: {
            "class_type": node["class_type"],
            "inputs": {k: v for k, v in node["inputs"].items() if k in known[node["class_type"]]},
        }
        for i, node in prompt.items()
    }


def api_file_of(title: str) -> Path | None:
    """The file for programs of a template, None for one without."""
    from workflow_designs import GRAPHS

    (name,) = [design.name for design in GRAPHS if design.title == title] or [None]
    return name and REPO / "workflows" / "api" / f"{name}.json"


def test_the_nodes_are_there_with_their_names(window: Window) -> None:
    titles = window.run(
        """() => Object.values(LiteGraph.registered_node_types)
            .filter(type => type.comfyClass?.startsWith('InfiniteTalk')).map(type => type.title)"""
    )
    nodes = list((REPO / "js" / "docs").glob("*.md"))
    assert len(titles) == len(nodes) and all(title.startswith("InfiniteTalk ") for title in titles)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_and_would_send_its_api_file(window: Window, server: Any, name: str) -> None:
    window.run("async () => { await app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
    page = window.page
    page.get_by_text(CATEGORY, exact=True).first.click(timeout=60 * SECONDS)
    card = page.get_by_text(name, exact=False).first
    card.wait_for(timeout=60 * SECONDS)
    if name == NAMES[0]:
        page.wait_for_timeout(1 * SECONDS)  # the thumbnails
        window.shot("templates")
    card.click()
    page.wait_for_function("() => app.graph._nodes.some(n => n.comfyClass === 'InfiniteTalkChunkSampler')")
    window.close_dialogs()
    window.shot(f"template_{name}")
    info = server.object_info()
    if (api_file := api_file_of(name)) is not None:
        expected = json.loads(api_file.read_text(encoding="utf-8"))
        assert of_server(window.prompt(), info) == of_server(expected, info)
    unknown = "() => app.graph._nodes.map(n => n.type).filter(type => !LiteGraph.registered_node_types[type])"
    assert window.run(unknown) == []
    assert too_near(window.boxes()) == []
    window.empty()


def test_nodes_are_found_by_search_and_connected_by_drag(window: Window) -> None:
    page = window.page
    window.empty()
    found = {
        "InfiniteTalkAudioEncoderLoader": ("InfiniteTalk Audio Encoder Loader", 500, 300),
        "InfiniteTalkSpeechEncode": ("InfiniteTalk Speech Encode", 1100, 400),
    }
    for kind, (title, x, y) in found.items():
        window.open_search(x, y)
        page.keyboard.type(title)
        page.wait_for_timeout(700)
        window.shot(f"search_{kind}")
        page.keyboard.press("Enter")
        page.wait_for_function("kind => app.graph._nodes.some(n => n.comfyClass === kind)", arg=kind)
        page.wait_for_timeout(700)
        page.mouse.move(x + 10, y + 5, steps=4)
        page.mouse.click(x + 10, y + 5)  # newer frontends let the node hang at the mouse until then
        page.wait_for_timeout(700)
        page.mouse.click(960, 950)
    page.wait_for_timeout(500)
    page.mouse.move(*window.position("InfiniteTalkAudioEncoderLoader", True, 0))
    page.mouse.down()
    page.mouse.move(*window.position("InfiniteTalkSpeechEncode", False, 0), steps=12)
    page.mouse.up()
    page.wait_for_timeout(300)
    window.shot("connected")
    links = window.run(
        """() => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkSpeechEncode');
            return node.inputs.map(input => input.link != null) }"""
    )
    assert links == [True, False], "the encoder is connected, the audio is not"


POLICY_NUMBERS = {"radius_seconds", "control", "times", "pick_seed"}
APG_NUMBERS = {"apg_momentum", "apg_norm_threshold"}


def gray(window: Window, nodes: str) -> set[str]:
    """The widgets that are grayed on the nodes whose type matches."""
    names = """nodes => app.graph._nodes.filter(n => RegExp(nodes).test(n.comfyClass))
        .flatMap(n => n.widgets).filter(w => w.disabled).map(w => w.name)"""
    return set(window.run(names, nodes))


def choose(window: Window, widget: str, value: str) -> None:
    """Choose `value` wherever a node has that widget."""
    script = """([name, value]) => { for (const widget of app.graph._nodes.flatMap(n => n.widgets ?? []))
        if (widget.name === name) { widget.value = value; widget.callback(value) } }"""
    window.run(script, [widget, value])


def test_numbers_without_effect_are_gray(window: Window) -> None:
    window.load(PORTRAIT)
    preset = {"steps", "text_scale", "audio_scale", "shift", "guidance_start", "guidance_end"}
    assert gray(window, "Picker|Guidance") == {"width", "height", *preset, *APG_NUMBERS, *POLICY_NUMBERS}
    choose(window, "size", "custom")
    choose(window, "preset", "custom")
    assert gray(window, "Picker|Guidance") == APG_NUMBERS | POLICY_NUMBERS
    copy = """() => { const node = app.graph._nodes.find(n => /Picker/.test(n.comfyClass)).clone();
        app.graph.add(node); return node.widgets.filter(w => w.disabled).map(w => w.name) }"""
    assert set(window.run(copy)) == POLICY_NUMBERS, "a copy of the node is grayed as the node is"


def test_a_policy_and_a_camera_path_gray_what_they_do_not_read(window: Window) -> None:
    window.load(CAMERA_PATH)
    choose(window, "size", "custom")
    uses_text = {
        "neighbor": {"radius_seconds", "pick_seed"},
        "adaptive": {"radius_seconds", "control", "pick_seed"},
        "by hand": {"times"},
        "distant": {"pick_seed"},
        "chunk start": set(),
    }
    for policy, numbers in uses_text.items():
        choose(window, "policy", policy)
        assert gray(window, "Picker") == POLICY_NUMBERS - numbers, policy
    moves = {
        "orbit": {"turn", "tilt"},
        "pan": {"right", "down", "forward"},
        "dolly": {"distance"},
        "zoom": {"zoom"},
        "swing1": set(),
    }
    every = set().union(*moves.values())
    for kind, numbers in {**moves, "free": every}.items():
        choose(window, "kind", kind)
        assert gray(window, "CameraPath") == every - numbers, kind


def test_tokens_in_the_name_are_filled_in_as_for_save_video(window: Window) -> None:
    window.load(PORTRAIT)
    name = "clips/%date:yyyy-MM-dd%/%InfiniteTalk Guidance.steps%_%InfiniteTalkGuidance.shift%_%width%_%No Node.a%"
    choose(window, "filename_prefix", name)
    window.run(
        """() => { const node = LiteGraph.createNode('SaveVideo'); app.graph.add(node);
            node.widgets.find(w => w.name === 'filename_prefix').value =
                app.graph._nodes.flatMap(n => n.widgets ?? []).find(w => w.name === 'filename_prefix').value }"""
    )
    sent = {node["class_type"]: node["inputs"] for node in window.prompt().values()}
    today = window.run("() => [new Date()].map(d => [d.getFullYear(), d.getMonth() + 1, d.getDate()])[0]")
    filled = sent["InfiniteTalkChunkSampler"]["filename_prefix"]
    assert filled == "clips/{:04}-{:02}-{:02}/8_7_%width%_%No Node.a%".format(*today)
    assert filled == sent["SaveVideo"]["filename_prefix"]
    saved = window.run(
        "() => app.graph.serialize().nodes.find(n => n.type === 'InfiniteTalkChunkSampler').widgets_values"
    )
    assert name in saved, "the workflow keeps what was written"
    window.empty()


def test_run_makes_a_video_and_shows_it_on_the_node(window: Window, voice_frames: int) -> None:
    window.load(PORTRAIT)
    make_quick(window)
    page = window.page
    page.locator("[data-testid=queue-button]").first.click()
    player = page.locator("video[src*='InfiniteTalk'], video:has(source[src*='InfiniteTalk'])").first
    player.wait_for(state="attached", timeout=60 * SECONDS)
    page.wait_for_function(
        """() => [...document.querySelectorAll('video')]
            .some(v => /InfiniteTalk/.test(v.currentSrc) && v.readyState >= 2)""",
        timeout=60 * SECONDS,
    )
    shown = player.evaluate("v => ({ seconds: v.duration, width: v.videoWidth, height: v.videoHeight })")
    assert (shown["width"], shown["height"]) == (64, 64)
    assert abs(shown["seconds"] - voice_frames / 25) < 0.1, "as long as voice.wav"
    page.wait_for_timeout(500)
    window.shot("after_run")


def test_the_model_cache_shows_what_it_found(window: Window) -> None:
    page = window.page
    window.empty()
    window.run(
        """() => { const node = LiteGraph.createNode('InfiniteTalkModelCache'); node.pos = [300, 200];
            app.graph.add(node) }"""
    )
    before = window.prompt()
    (inputs,) = (node["inputs"] for node in before.values())
    assert inputs == {"budget_gb": -1, "empty": False}, "what is shown is no input"
    window.run("async () => { await app.queuePrompt(0, 1) }")
    shown = page.locator("[data-infinitetalk=model-cache]", has_text="GB in RAM")
    shown.wait_for(timeout=60 * SECONDS)
    assert "hits " in shown.text_content()
    window.shot("model_cache")
    assert window.prompt() == before


def test_the_help_page_opens(window: Window) -> None:
    window.load(PORTRAIT)
    page = window.page
    window.run(
        """() => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkGuidance');
            app.canvas.selectNodes([node]); app.canvas.centerOnNode(node); app.canvas.setDirty(true, true) }"""
    )
    page.locator("[data-testid=info-button]").first.click(timeout=60 * SECONDS)
    page.get_by_text("Model passes a chunk").first.wait_for(timeout=60 * SECONDS)
    window.shot("help")


def test_nothing_of_ours_complained(window: Window) -> None:
    assert window.complaints == []
