"""Take a screenshot of a workflow in ComfyUI's frontend, for the README.

    python tools/screenshot_graph.py COMFYUI_DIR

Starts that ComfyUI with the pack and the samples, opens the graph of a talking portrait in Chromium (playwright;
$CHROMIUM or the one on the PATH) and writes docs/graph.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from comfy_server import ComfyServer
from PIL import Image

from small_models import place_samples

REPO = Path(__file__).resolve().parents[1]
WORKFLOW = REPO / "workflows" / "Graph 1 - Talking portrait, lip sync avatar.json"
PICTURE = REPO / "docs" / "graph.png"
MARGIN = 24  # in the graph's units
WINDOW = (1700, 1240)
SHARPNESS = 1.2  # pixels of the picture per pixel of the window
# CSS selectors of everything except the canvas and its overlays.
HIDE = """
.comfyui-body-top, .comfyui-body-left, .comfyui-body-bottom, .side-tool-bar-container, .graph-canvas-panel,
.p-toast, .actionbar, .comfy-menu-hamburger, .litegraph-minimap, .p-dialog-mask { visibility: hidden !important }
"""


def capture_graph(page: Any, url: str) -> bytes:
    """Return a screenshot of the graph alone, as PNG."""
    page.goto(url)
    page.wait_for_selector("body[data-infinitetalk=ready]", timeout=180_000)
    page.wait_for_timeout(1500)
    saved = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    page.evaluate("async saved => { await app.loadGraphData(saved) }", saved)
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")  # closes the list of missing models
    page.evaluate("async () => { await app.extensionManager.command.execute('Workspace.ToggleFocusMode') }")
    page.add_style_tag(content=HIDE)
    left, top, right, bottom = graph_bounds(saved)
    scale = min(WINDOW[0] / (right - left), WINDOW[1] / (bottom - top))
    page.evaluate(
        """([x, y, scale]) => { app.canvas.show_info = false; app.canvas.ds.scale = scale;
            app.canvas.ds.offset = [x, y]; app.canvas.setDirty(true, true) }""",
        [-left, -top, scale],
    )
    page.wait_for_timeout(1500)
    clip = {"x": 0, "y": 0, "width": round((right - left) * scale), "height": round((bottom - top) * scale)}
    return bytes(page.screenshot(clip=clip))


def graph_bounds(saved: dict[str, Any]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of all nodes and groups, with a margin."""
    boxes = [group["bounding"] for group in saved["groups"]]
    boxes += [[n["pos"][0], n["pos"][1] - 30, n["size"][0], n["size"][1] + 30] for n in saved["nodes"]]
    left, top = (min(box[i] for box in boxes) - MARGIN for i in (0, 1))
    right, bottom = (max(box[i] + box[i + 2] for box in boxes) + MARGIN for i in (0, 1))
    return left, top, right, bottom


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder, with main.py in it")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        base = Path(scratch)
        place_samples(REPO / "samples", base / "input")
        settings = base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}))
        with ComfyServer(Path(sys.executable), options.comfyui, base, pack=REPO) as server:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            size = {"width": WINDOW[0], "height": WINDOW[1]}
            page = browser.new_page(viewport=size, device_scale_factor=SHARPNESS)
            PICTURE.parent.mkdir(exist_ok=True)
            PICTURE.write_bytes(capture_graph(page, server.url))
            browser.close()
    picture = Image.open(PICTURE).convert("RGB")
    picture.save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(REPO)}: {picture.width} x {picture.height}, {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
