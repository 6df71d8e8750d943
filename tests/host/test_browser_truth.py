"""In ComfyUI's real frontend: presets show the numbers that they stand for, and the sampler what became of its job."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in (os.environ.get("CHROMIUM"), *NAMES) if name and (path := shutil.which(name))), None)
SECONDS = 1000
GUIDANCE, SAMPLER = "InfiniteTalkGuidance", "InfiniteTalkChunkSampler"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM")


def modes() -> list[str]:
    """How the installed frontend can show nodes; the first Nodes 2.0 (1.32) was a trial."""
    version = tuple(int(part) for part in metadata.version("comfyui_frontend_package").split(".")[:2])
    return ["canvas", "nodes2"] if version > (1, 32) else ["canvas"]


@pytest.fixture(scope="module", params=modes())
def page(request: pytest.FixtureRequest, server: Any) -> Iterator[Any]:
    def setting(name: str, value: Any) -> None:
        body, header = json.dumps(value).encode(), {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{server.url}/api/settings/{name}", body, header)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=30).close()

    setting("Comfy.TutorialCompleted", True)
    setting("Comfy.VueNodes.Enabled", request.param == "nodes2")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments)
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(server.url)
        page.wait_for_selector("body[data-infinitetalk=ready]", timeout=90 * SECONDS)
        page.wait_for_function("() => window.app?.canvas && window.app.extensionManager")
        page.wait_for_timeout(1 * SECONDS)  # the frontend still restores its last tab
        yield page
        browser.close()


VALUES = """() => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkGuidance');
    return Object.fromEntries(node.widgets.map(w => [w.name, w.value])) }"""
CHOOSE = """([name, value]) => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkGuidance');
    const widget = node.widgets.find(w => w.name === name); widget.value = value; widget.callback?.(value) }"""


@pytest.fixture
def guidance(page: Any) -> Any:
    """A new Guidance node alone in the graph."""
    page.evaluate(
        """() => { app.graph.clear(); const node = LiteGraph.createNode('InfiniteTalkGuidance');
            node.pos = [300, 200]; app.graph.add(node) }"""
    )
    return page


def test_each_preset_shows_the_numbers_that_it_stands_for(guidance: Any, server: Any) -> None:
    options = server.object_info()[GUIDANCE]["input"]["required"]["preset"][1]["numbers_of_options"]
    assert options["distill LoRA (8 steps)"].items() >= {"steps": 8, "text_scale": 1, "audio_scale": 2}.items()
    assert len(options) > 5
    for preset, numbers in options.items():
        guidance.evaluate(CHOOSE, ["preset", preset])
        shown = guidance.evaluate(VALUES)
        assert {name: shown[name] for name in numbers} == pytest.approx(numbers), preset


def test_custom_begins_with_the_presets_numbers_and_keeps_the_users(guidance: Any) -> None:
    guidance.evaluate(CHOOSE, ["preset", "distill LoRA (8 steps)"])
    guidance.evaluate(CHOOSE, ["preset", "custom"])
    assert guidance.evaluate(VALUES)["steps"] == 8
    guidance.evaluate(CHOOSE, ["steps", 23])
    guidance.evaluate(CHOOSE, ["preset", "FlashTalk (4 steps)"])
    assert guidance.evaluate(VALUES)["shift"] == 5
    guidance.evaluate(CHOOSE, ["preset", "custom"])
    assert guidance.evaluate(VALUES)["steps"] == 23


def test_a_workflow_that_was_saved_with_other_numbers_is_put_right(guidance: Any) -> None:
    saved = guidance.evaluate("() => app.graph.serialize()")
    (node,) = saved["nodes"]
    node["widgets_values"][:5] = ["distill LoRA (8 steps)", 40, 5.0, 4.0, 7.0]
    guidance.evaluate("async saved => { await app.loadGraphData(saved) }", saved)
    shown = guidance.evaluate(VALUES)
    assert [shown[name] for name in ("steps", "text_scale", "audio_scale", "shift")] == [8, 1, 2, 7]
    sent = guidance.evaluate("async () => (await app.graphToPrompt()).output")
    assert next(iter(sent.values()))["inputs"]["steps"] == 8
    node["widgets_values"][:5] = ["custom", 33, 5.0, 4.0, 7.0]
    guidance.evaluate("async saved => { await app.loadGraphData(saved) }", saved)
    assert guidance.evaluate(VALUES)["steps"] == 33, "these are the user's"


def test_a_preset_over_a_link_leaves_the_numbers(guidance: Any) -> None:
    guidance.evaluate(
        """() => { const node = app.graph._nodes[0], text = LiteGraph.createNode('PrimitiveNode');
            node.widgets.find(w => w.name === 'preset').value = 'custom';
            const slot = node.inputs.findIndex(i => i.name === 'preset');
            if (slot < 0) throw new Error('no slot'); app.graph.add(text); text.connect(0, node, slot) }"""
    )
    guidance.evaluate(CHOOSE, ["steps", 23])
    guidance.evaluate(CHOOSE, ["preset", "distill LoRA (8 steps)"])
    assert guidance.evaluate(VALUES)["steps"] == 23


SAID = """() => app.graph._nodes.filter(n => n.comfyClass === 'InfiniteTalkChunkSampler')
    .flatMap(n => n.widgets).find(w => w.name === '$$node-text-preview')?.value ?? ''"""


def test_the_sampler_says_done_and_then_already_made(page: Any, small: Callable[[str], Any], short_voice: str) -> None:
    workflow = small("talking_portrait")
    for node in workflow.values():
        changes = {
            "LoadAudio": {"audio": short_voice},
            "InfiniteTalkReferencePicker": {"size": "custom", "width": 64, "height": 64},
            GUIDANCE: {"preset": "distill LoRA (4 steps)"},
            SAMPLER: {"chunk_frames": 29, "context_frames": 5, "seed": 90},
        }
        node["inputs"].update(changes.get(node["class_type"], {}))
    page.evaluate(
        """async workflow => { await app.loadApiJson(workflow, 'small');
            for (const widget of app.graph._nodes.flatMap(n => n.widgets ?? []))
                if (widget.name === 'control_after_generate') widget.value = 'fixed' }""",
        workflow,
    )
    page.evaluate("async () => { await app.queuePrompt(0, 1) }")
    # In the second window the server has it from the first, and nothing was written on this node yet.
    page.wait_for_function(f"() => /^(Done: 2.88 s|Already made)/.test(({SAID})())", timeout=120 * SECONDS)
    page.evaluate("async () => { await app.queuePrompt(0, 1) }")
    try:
        page.wait_for_function(f"() => /^Already made; change the seed/.test(({SAID})())", timeout=60 * SECONDS)
    except sync_api.TimeoutError:
        raise AssertionError(page.evaluate(SAID)) from None
    picker = """() => app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkReferencePicker')
        .widgets.find(w => w.name === '$$node-text-preview')?.value"""
    assert page.evaluate(picker) == "3 chunks, 2.9 s, 64 x 64"
