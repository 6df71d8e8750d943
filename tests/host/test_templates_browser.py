"""The templates in the real frontend, on the canvas and in Nodes 2.0: nodes that cover each other, and readable text.

Measured from the boxes as drawn. Screenshots are kept in .test-output/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from browser import READY, SECONDS, SHOTS, browser, chromium, set_setting

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
WIDE, NARROW = {"width": 1920, "height": 1080}, {"width": 1440, "height": 900}
NODES_2, CANVAS = True, False
WIDTH = 1900  # of a graph, in its units: what is shown readable in a window 1440 pixels wide
LEAST_ZOOM = 8 / 14  # LiteGraph draws no text below
CLEAR = 8  # between nodes: one grows when it gets another input
HAN = re.compile("[\u4e00-\u9fff]")
Box = tuple[str, float, float, float, float]

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM")

# Left, top, right and bottom of each node and group, in the graph's units; of nodes in Nodes 2.0 from the page.
BOXES = """() => {
    const { ds, canvas } = app.canvas, frame = canvas.getBoundingClientRect();
    const drawn = (node) => {
        const element = document.querySelector(`[data-node-id="${node.id}"]`);
        const [x, y] = node.pos, title = LiteGraph.NODE_TITLE_HEIGHT;
        if (!element) return [x, y - title, x + node.size[0], y + node.size[1]];
        const box = element.getBoundingClientRect();
        return [(box.left - frame.left) / ds.scale - ds.offset[0], (box.top - frame.top) / ds.scale - ds.offset[1],
            (box.right - frame.left) / ds.scale - ds.offset[0], (box.bottom - frame.top) / ds.scale - ds.offset[1]];
    };
    const groups = app.graph._groups.map(g => [g.title, g._bounding[0], g._bounding[1],
        g._bounding[0] + g._bounding[2], g._bounding[1] + g._bounding[3]]);
    return { nodes: app.graph._nodes.map(n => [n.type, ...drawn(n)]), groups: groups };
}"""

# A frontend that draws graphs of the canvas where they are also in Nodes 2.0.
HAS_SETTLED_NODES_2 = """() => Number((window.__COMFYUI_FRONTEND_VERSION__ ?? '0.0').split('.')[1]) >= 40"""


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as found:
        yield found


def open_page(chrome: Any, server: Any, nodes_2: bool, locale: str = "en") -> Any:
    set_setting(server.url, "Comfy.TutorialCompleted", True)
    set_setting(server.url, "Comfy.VueNodes.Enabled", nodes_2)
    set_setting(server.url, "Comfy.Locale", locale)
    page = chrome.new_page(viewport=WIDE)
    page.goto(server.url)
    page.wait_for_selector(READY, timeout=60 * SECONDS)
    page.wait_for_timeout(1 * SECONDS)  # the frontend still restores its last tab
    return page


@pytest.fixture(scope="module", params=[CANVAS, NODES_2], ids=["canvas", "nodes 2.0"])
def page(request: pytest.FixtureRequest, chrome: Any, server: Any) -> Iterator[Any]:
    opened = open_page(chrome, server, request.param)
    if request.param is NODES_2 and not opened.evaluate(HAS_SETTLED_NODES_2):
        pytest.skip("the first Nodes 2.0 (frontend 1.32) enlarges every graph by a fifth, and its nodes by more")
    yield opened
    opened.close()
    set_setting(server.url, "Comfy.VueNodes.Enabled", False)


def show(page: Any, name: str, size: dict[str, int]) -> None:
    """Open a template as its card in the list does; as a graph, if it is an app."""
    page.set_viewport_size(size)
    saved = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    saved["extra"].pop("linearMode", None)
    page.evaluate(
        "async saved => { await app.loadGraphData(saved, true, true, 'x', { openSource: 'template' }) }", saved
    )
    page.wait_for_timeout(1 * SECONDS)
    page.keyboard.press("Escape")  # the list of missing models
    page.wait_for_timeout(300)


def covering(boxes: list[Box]) -> list[tuple[str, str]]:
    return [
        (one, other)
        for (one, x0, y0, x1, y1), (other, left, top, right, bottom) in combinations(boxes, 2)
        if x0 < right + CLEAR and left < x1 + CLEAR and y0 < bottom + CLEAR and top < y1 + CLEAR
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_node_covers_another_and_each_lies_in_a_group(page: Any, name: str) -> None:
    show(page, name, WIDE)
    found = page.evaluate(BOXES)
    nodes: list[Box] = [tuple(each) for each in found["nodes"]]
    assert covering(nodes) == []
    assert covering([tuple(each) for each in found["groups"]]) == []
    for kind, x0, y0, x1, y1 in nodes:
        inside = [g for g, left, top, right, bottom in found["groups"] if left <= x0 and top <= y0]
        inside = [g for g, left, top, right, bottom in found["groups"] if x1 <= right and y1 <= bottom and g in inside]
        assert inside or kind == "MarkdownNote", f"{kind} {(x0, y0, x1, y1)} is in none of {found['groups']}"


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["1920", "1440"])
@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_readable_text_and_its_beginning_in_sight(page: Any, name: str, size: dict[str, int]) -> None:
    show(page, name, size)
    SHOTS.mkdir(exist_ok=True)
    mode = "nodes2" if page.evaluate("() => LiteGraph.vueNodesMode") else "canvas"
    page.screenshot(path=SHOTS / f"opened_{mode}_{size['width']}_{name}.png")
    boxes = page.evaluate(BOXES)["nodes"]
    assert max(box[3] for box in boxes) - min(box[1] for box in boxes) <= WIDTH
    zoom, offset = page.evaluate("() => [app.canvas.ds.scale, [...app.canvas.ds.offset]]")
    assert zoom > LEAST_ZOOM
    left, top = min(box[1] for box in boxes) + offset[0], min(box[2] for box in boxes) + offset[1]
    assert 0 < left * zoom < size["width"] / 3 and 0 < top * zoom < size["height"] / 3


@pytest.mark.parametrize("name", NAMES)
def test_in_chinese_all_of_it_is(chrome: Any, server: Any, name: str) -> None:
    page = open_page(chrome, server, CANVAS, "zh")
    show(page, name, WIDE)
    page.screenshot(path=SHOTS / f"zh_{name}.png")
    texts = page.evaluate(
        """() => [...app.graph._groups.map(g => g.title), ...app.graph._nodes.map(n => n.title),
            ...app.graph._nodes.flatMap(n => (n.inputs ?? []).filter(i => i.label).map(i => i.label)),
            app.graph._nodes.find(n => n.type === 'MarkdownNote').widgets[0].value]"""
    )
    choices = page.evaluate(
        """() => app.graph._nodes.filter(n => n.comfyClass?.startsWith('InfiniteTalk')).flatMap(n => n.widgets ?? [])
            .filter(w => w.name === 'policy').map(w => [w.value, w.options.getOptionLabel?.(w.value)])"""
    )
    page.close()
    set_setting(server.url, "Comfy.Locale", "en")
    english = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))["extra"]["infinitetalk"]["zh"][
        "texts"
    ]
    assert not set(texts) & set(english), "nothing is left in English"
    assert HAN.search(texts[-1]), "the note"
    assert choices == [["auto", "自动 auto"]], "shown in Chinese, stored as it was"
