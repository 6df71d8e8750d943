"""A run as it is watched in the real frontend: the growing video, the strip of chunks, reload, interrupt, two tabs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from browser import SAMPLER, SECONDS, SIZE, Window, chromium, make_quick, modes, open_window

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM")

WATCH = "document.querySelector('[data-infinitetalk=watch]')"
VIDEO, LINE = f"{WATCH}?.querySelector('video')", f"{WATCH}?.querySelector('.line').textContent"
CHUNKS = 3  # of short_voice, with 29 frames and 5 context frames
STEPS = 10
TIMEOUT = 90 * SECONDS
SEEDS = count(1)
BUSY_SECONDS = 3  # what a machine that runs other tests meanwhile may add
# Passes once the first picture of a growing video can be seen.
GROWING = f"() => {VIDEO}?.src.startsWith('blob:') && {VIDEO}.readyState >= 2"
FILE = f"() => /view\\?.*InfiniteTalk/.test({VIDEO}?.currentSrc) && {VIDEO}.readyState >= 2"


@pytest.fixture(scope="module", params=modes())
def window(server: Any, request: pytest.FixtureRequest) -> Iterator[Window]:
    with open_window(server.url, request.param) as found:
        yield found


@pytest.fixture
def job(window: Window, short_voice: str) -> Window:
    """The window with a job of three chunks that was not made before."""
    window.load("Graph 1 - Talking portrait, lip sync avatar")
    make_quick(window, short_voice, chunk_frames=29, context_frames=5)
    set_seed(window)
    window.run(
        """steps => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkGuidance');
            for (const [name, value] of Object.entries({ preset: 'custom', steps, text_scale: 1, audio_scale: 1 })) {
                const widget = node.widgets.find(w => w.name === name);
                widget.value = value; widget.callback?.(value) } }""",
        STEPS,
    )
    return window


def set_seed(window: Window) -> None:
    window.run(
        """([type, seed]) => { const node = app.graph._nodes.find(n => n.comfyClass === type);
            const widget = node.widgets.find(w => w.name === 'seed'); widget.value = seed; widget.callback?.(seed) }""",
        [SAMPLER, next(SEEDS)],
    )


def start(window: Window) -> None:
    window.page.locator("[data-testid=queue-button]").first.click()


def interrupt(window: Window) -> None:
    window.run("async () => { const { api } = await import('/scripts/api.js'); await api.interrupt() }")


def wait(window: Window, condition: str) -> None:
    window.page.wait_for_function(condition, timeout=TIMEOUT)


def wait_for_end(window: Window) -> None:
    window.page.wait_for_function(
        "async () => { const queue = await (await fetch('/queue')).json(); return !queue.queue_running.length }",
        timeout=TIMEOUT,
    )


def box_of(window: Window) -> tuple[float, float, float, float]:
    """The sampler's left, top, width and height."""
    (found,) = [box for box in window.boxes() if box[0] == "InfiniteTalk Chunk Sampler"]
    _, left, top, right, bottom = found
    return left, top, right - left, bottom - top


def pictures_on_the_sampler(window: Window) -> int:
    """How many pictures, players and previews a user sees on the sampler."""
    return window.run(
        """type => { const node = app.graph._nodes.find(n => n.comfyClass === type);
            const own = document.querySelector('[data-infinitetalk=watch]');
            const box = document.querySelector(`[data-node-id="${node.id}"]`) ?? own;
            const shown = new Set([...own.querySelectorAll('img, video'), ...box.querySelectorAll('img, video'),
                ...document.querySelectorAll('.comfy-img-preview video, .comfy-img-preview img')]);
            const drawn = LiteGraph.vueNodesMode ? 0 : node.imgs?.length ?? 0;
            return drawn + [...shown].filter(e => e.offsetParent && e.getClientRects().length).length }""",
        SAMPLER,
    )


def test_the_video_can_be_watched_while_it_is_made(job: Window, server: Any) -> None:
    before = box_of(job)
    runs = server.base / "output" / "infinitetalk_runs"
    known = set(runs.glob("*/00001-*.json"))
    job.run(
        """() => { window.firstPicture = null; document.addEventListener('loadeddata', event => {
            if (event.target.src.startsWith('blob:')) window.firstPicture ??= Date.now() / 1000 }, true) }"""
    )
    start(job)
    wait(job, GROWING)
    (record,) = set(runs.glob("*/00001-*.json")) - known
    waited = job.run("() => window.firstPicture") - record.stat().st_mtime
    assert waited < 2 + BUSY_SECONDS
    assert not list((server.base / "temp").rglob("*.mp4")), "no second copy on the disk"
    assert {path.parent for path in (server.base / "output").rglob("*.mp4")} <= {*runs.iterdir(), runs.parent / "video"}
    wait(job, f"() => /^[23] of {CHUNKS}/.test({LINE}) && {VIDEO}.seekable.end(0) > 1.2")
    job.run(f"() => {{ Object.assign({VIDEO}, {{ currentTime: 0.6 }}) }}")
    wait(job, f"() => Math.abs({VIDEO}.currentTime - 0.6) < 0.1 && {VIDEO}.readyState >= 2")
    wait(job, FILE)
    assert job.run(f"() => {VIDEO}.duration") == pytest.approx(72 / 25, abs=0.1)
    wait_for_end(job)
    job.page.wait_for_timeout(1 * SECONDS)  # what the frontend adds at the end
    assert pictures_on_the_sampler(job) == 1, "the player, and no picture of a step"
    assert box_of(job) == pytest.approx(before, abs=2), "the node has not grown"
    job.shot("watched")


def test_an_interrupt_leaves_what_is_finished_and_the_next_run_clears_it(job: Window) -> None:
    start(job)
    wait(job, GROWING)
    interrupt(job)
    wait(job, FILE)
    assert "_interrupted" in job.run(f"() => {VIDEO}.currentSrc")
    assert pictures_on_the_sampler(job) == 1
    set_seed(job)
    start(job)
    wait(job, f"() => {LINE}.startsWith('0 of {CHUNKS}')")
    assert job.run(f"() => {VIDEO}.hidden"), "the old video is not under the new preview"
    interrupt(job)
    wait_for_end(job)


def test_the_strip_survives_a_reload_and_takes_clicks(job: Window) -> None:
    start(job)
    wait(job, GROWING)
    job.reload()
    wait(job, f"() => / of {CHUNKS} /.test({LINE})")
    wait(job, f"() => {LINE}.startsWith('{CHUNKS} of {CHUNKS}')")
    wait(job, FILE)
    wait_for_end(job)
    strip = job.page.locator("canvas[data-infinitetalk=chunks]").first
    box = strip.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    job.page.mouse.move(*middle)
    wait(job, f"() => /^chunk 2 at 1.2 s: join .*color drift .*sharpness [0-9]/.test({LINE})")
    job.page.mouse.click(*middle)
    wait(job, f"() => {VIDEO}.currentTime >= 1.15")
    redo = """type => app.graph._nodes.find(n => n.comfyClass === type)
        .widgets.find(w => w.name === 'redo_chunks').value"""
    assert job.run(redo, SAMPLER) == ""
    job.page.mouse.click(*middle)
    wait(job, f"() => {LINE}.startsWith('chunk 2 will be made again')")
    text = job.run(redo, SAMPLER)
    assert text.startswith("2=") and text.removeprefix("2=").isdigit()
    (sent,) = [node["inputs"] for node in job.prompt().values() if node["class_type"] == SAMPLER]
    assert sent["redo_chunks"] == text and "watch" not in sent
    job.shot("redo")


def test_two_tabs_and_a_node_deleted_while_it_runs(job: Window, server: Any) -> None:
    graph = job.run("() => app.graph.serialize()")
    other = Window(job.page.context.browser.new_page(viewport=SIZE), server.url, job.mode)
    other.run("async graph => { await app.loadGraphData(graph) }", graph)
    start(job)
    wait(other, GROWING)
    job.run("type => app.graph.remove(app.graph._nodes.find(n => n.comfyClass === type))", SAMPLER)
    wait(other, FILE)
    assert other.run(f"() => {LINE}") == f"{CHUNKS} of {CHUNKS} chunks"
    job.page.wait_for_timeout(500)
    assert other.complaints == []
    other.page.close()


def test_the_picks_are_a_picture(window: Window, short_voice: str) -> None:
    """Nodes 2.0 took the picker for a node that shows a video, since it has an input for one."""
    window.load("Graph 2 - Dub a video, lip sync")
    make_quick(window, short_voice, chunk_frames=29, context_frames=5)
    set_seed(window)
    start(window)
    wait(window, f"() => {LINE}?.startsWith('1 of ')")
    interrupt(window)
    wait_for_end(window)
    found = window.run(
        """() => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkReferencePicker');
            const box = document.querySelector(`[data-node-id="${node.id}"]`);
            const own = LiteGraph.vueNodesMode ? box.querySelectorAll('img') : node.imgs ?? [];
            return [box?.textContent.includes('failed') ?? false, [...own].some(i => i.naturalWidth > 100)] }"""
    )
    assert found == [False, True]
    window.shot("picks")


def test_people_are_placed_by_drawing_on_the_picture(window: Window) -> None:
    window.load("Graph 3 - Two people talking")
    boxes = """() => app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkSpeakers').widgets
        .filter(w => /^box_/.test(w.name)).map(w => w.value)"""
    canvas = window.page.locator("[data-infinitetalk=boxes] canvas").first
    window.page.wait_for_function(
        "() => document.querySelector('[data-infinitetalk=boxes] span').textContent.startsWith('draw')", timeout=TIMEOUT
    )
    window.run("() => app.canvas.ds.reset()")
    window.run(
        """() => { const node = app.graph._nodes.find(n => n.comfyClass === 'InfiniteTalkSpeakers');
            app.canvas.bringToFront(node); app.canvas.centerOnNode(node); app.canvas.setDirty(true, true) }"""
    )
    window.page.wait_for_timeout(1 * SECONDS)
    place = canvas.bounding_box()
    corners = [(0.2, 0.4), (0.4, 0.6)]  # above and below the picture the panel may be empty
    (x0, y0), (x1, y1) = ((place["x"] + place["width"] * x, place["y"] + place["height"] * y) for x, y in corners)
    window.page.mouse.move(x0, y0)
    window.page.mouse.down()
    window.page.mouse.move(x1, y1, steps=4)
    window.page.mouse.up()
    window.shot("people")
    first, second = ([float(word) for word in text.split(",")] for text in window.run(boxes))
    assert 0 < first[0] < first[2] < 832 / 2 and 0 < first[1] < first[3] < 480, "of two_people.png, 832 x 480"
    assert second == [436, 24, 811, 456], "the right half, as without boxes"
    (sent,) = [node["inputs"] for node in window.prompt().values() if node["class_type"] == "InfiniteTalkSpeakers"]
    assert sent["box_2"] == "436, 24, 811, 456" and "people" not in sent


def test_nothing_of_ours_complained(window: Window) -> None:
    assert window.complaints == []
