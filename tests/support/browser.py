"""ComfyUI's real frontend in headless Chromium, for the tests of the pages. Screenshots are kept in .test-output/."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
SHOTS = REPO / ".test-output"
SIZE = {"width": 1920, "height": 1080}
READY = "body[data-infinitetalk=ready]"
# Not ours: what the frontend asks the internet for, and a help page by language before the one for all.
HARMLESS = ("api.comfy.org", "huggingface.co", "Failed to fetch", "/en.md")
SECONDS = 1000
CANVAS, NODES_2 = "canvas", "nodes2"
SAMPLER = "InfiniteTalkChunkSampler"


def chromium() -> str | None:
    """Return the path of the browser; None if there is none."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def modes() -> list[str]:
    """Return how the installed frontend can show nodes. The first Nodes 2.0 (1.32) does not count: it was a trial."""
    try:
        version = tuple(int(part) for part in metadata.version("comfyui_frontend_package").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return [CANVAS]
    return [CANVAS, NODES_2] if version > (1, 32) else [CANVAS]


class Window:
    """A browser window with ComfyUI in it, and what it complained about. mode: how it shows nodes."""

    def __init__(self, page: Any, url: str, mode: str = CANVAS) -> None:
        self.page, self.mode = page, mode
        self.complaints: list[str] = []
        page.on("console", lambda m: self._keep(m.type, f"{m.text} {m.location.get('url', '')}"))
        page.on("pageerror", lambda error: self._keep("error", str(error)))
        page.goto(url)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait for the frontend and our extensions."""
        page = self.page
        page.wait_for_selector(READY, timeout=60 * SECONDS)
        page.wait_for_function("() => window.app?.canvas && window.app.extensionManager")
        page.wait_for_timeout(1 * SECONDS)  # the frontend still restores its last tab

    def _keep(self, kind: str, text: str) -> None:
        ours = "infinitetalk" in text.lower() and not any(word in text for word in HARMLESS)
        if kind == "error" and ours:
            self.complaints.append(text)

    def shot(self, name: str) -> None:
        SHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{self.mode}_{name}.png")

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def close_dialogs(self) -> None:
        """The list of missing models, mostly."""
        self.page.wait_for_timeout(700)
        for _ in range(3):
            if not self.page.locator(".p-dialog, [role=dialog]").count():
                return
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(300)

    def load(self, name: str) -> None:
        """Open a workflow as if its file were dropped onto the window."""
        saved = json.loads((REPO / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        self.run("async saved => { await app.loadGraphData(saved) }", saved)
        self.close_dialogs()

    def empty(self) -> None:
        """A new, empty workflow at natural size."""
        self.run("async () => { await app.extensionManager.command.execute('Comfy.NewBlankWorkflow') }")
        self.page.wait_for_timeout(500)
        self.run("() => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [0, 0]; app.canvas.setDirty(true, true) }")

    def open_search(self, x: float, y: float) -> None:
        """Double-click until the search is there: clicks just before, or a busy machine, can make it a single one."""
        for _ in range(5):
            self.page.wait_for_timeout(700)
            self.page.mouse.dblclick(x, y)
            self.page.wait_for_timeout(700)
            if self.run("() => document.activeElement?.tagName === 'INPUT'"):
                return
        raise AssertionError("the search for nodes does not open")

    def reload(self) -> None:
        """Reload the page, as a user does."""
        self.page.reload()
        self.wait_until_ready()
        self.close_dialogs()

    def prompt(self) -> dict[str, Any]:
        """What Run would send."""
        return self.run("async () => (await app.graphToPrompt()).output")

    def boxes(self) -> list[tuple[str, float, float, float, float]]:
        """Title, left, top, right and bottom of each node as drawn, its title bar included, in units of the graph."""
        if self.mode == NODES_2:
            found = self.run(
                """() => app.graph._nodes.map(n => {
                    const box = document.querySelector(`[data-node-id="${n.id}"]`)?.getBoundingClientRect();
                    const { ds, canvas } = app.canvas, frame = canvas.getBoundingClientRect();
                    const x = v => (v - frame.left) / ds.scale - ds.offset[0];
                    const y = v => (v - frame.top) / ds.scale - ds.offset[1];
                    return box && [n.title, x(box.left), y(box.top), x(box.right), y(box.bottom)] }).filter(Boolean)"""
            )
            return [tuple(box) for box in found]
        found = self.run(
            """() => app.graph._nodes.map(n => [n.title, n.pos[0], n.pos[1] - LiteGraph.NODE_TITLE_HEIGHT,
                n.pos[0] + n.size[0], n.pos[1] + n.size[1]])"""
        )
        return [tuple(box) for box in found]

    def position(self, node: str, output: bool, slot: int) -> tuple[float, float]:
        """Where on the screen a slot of a node is."""
        x, y = self.run(
            """([type, output, slot]) => {
                const node = app.graph._nodes.find(n => n.comfyClass === type);
                const place = node.getConnectionPos(!output, slot);
                const { ds, canvas } = app.canvas, frame = canvas.getBoundingClientRect();
                return [0, 1].map(i => (place[i] + ds.offset[i]) * ds.scale + [frame.left, frame.top][i]);
            }""",
            [node, output, slot],
        )
        return x, y


def set_setting(url: str, name: str, value: Any) -> None:
    """Change a setting of the frontend, for pages that are opened later."""
    request = urllib.request.Request(
        f"{url}/api/settings/{name}", json.dumps(value).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), headless=True, args=arguments)
        yield found
        found.close()


@contextlib.contextmanager
def open_window(url: str, mode: str) -> Iterator[Window]:
    """A browser with one window, which shows nodes as `mode` says."""
    set_setting(url, "Comfy.TutorialCompleted", True)
    set_setting(url, "Comfy.VueNodes.Enabled", mode == NODES_2)
    with browser() as found:
        yield Window(found.new_page(viewport=SIZE), url, mode)


def make_quick(window: Window, voice: str | None = None, **sampler: Any) -> None:
    """Change the open graph so that it runs in seconds: small random models, small pictures.

    voice: a file in the server's input folder; sampler: inputs of the Chunk Sampler.
    """
    from small_models import RANDOM, WITHOUT_SMALL_FILE

    window.run(
        """([files, without, voice, sampler]) => {
            const quick = { size: 'custom', width: 64, height: 64, preset: 'distill LoRA (4 steps)' };
            for (const node of [...app.graph._nodes]) {
                if (!node.comfyClass) continue; // a note
                if (without.includes(node.comfyClass)) { app.graph.remove(node); continue }
                const small = files[node.comfyClass] ?? {};
                const ours = node.comfyClass.startsWith('InfiniteTalk');
                const own = node.comfyClass === 'InfiniteTalkChunkSampler' ? sampler : {};
                for (const widget of node.widgets ?? []) {
                    if (typeof small === 'string' && /\\.safetensors$/.test(widget.value)) widget.value = small;
                    if (small[widget.name]) widget.value = small[widget.name];
                    if (node.comfyClass === 'LoadAudio' && voice && widget.name === 'audio') widget.value = voice;
                    const value = own[widget.name] ?? (ours ? quick[widget.name] : undefined);
                    if (value !== undefined) { widget.value = value; widget.callback?.(value) }
                }
            }
        }""",
        [RANDOM.files, [*WITHOUT_SMALL_FILE, "CLIPTextEncode"], voice, sampler],
    )
