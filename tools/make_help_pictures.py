"""Take the picture at the top of each node's help page: the node as it is connected in a template.

    python tools/make_help_pictures.py COMFYUI_DIR

Starts that ComfyUI with the pack, the samples and empty files in place of the models, opens the templates in Chromium
(playwright; $CHROMIUM or the one on the PATH) in Nodes 2.0 and writes js/docs/pictures/<node>.jpg.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import object_info
from comfy_server import ComfyServer
from PIL import Image
from workflow_parts import FILES

from small_models import place_samples

REPO = Path(__file__).resolve().parents[1]
PICTURES = REPO / "js" / "docs" / "pictures"
AROUND = (90, 34)  # pixels beside and above the node, where its wires are seen
MOST_PIXELS = (700, 520)
QUALITY = 80
# The templates that show the nodes; of several the first one.
TEMPLATES = (
    "Graph 1 - Talking portrait, lip sync avatar",
    "Graph 3 - Two people talking",
    "Graph 4 - Dub, camera kept by Uni3C",
    "Graph 5 - Dub, held to the source by SDEdit",
    "Graph 6 - Dub, only the face changes",
    "Graph 7 - Talking portrait, camera path",
    "Graph 8 - Files by path, step cache, wav2vec",
    "Talking picture.app",
)
HIDE = """
.comfyui-body-top, .comfyui-body-left, .comfyui-body-bottom, .side-tool-bar-container, .graph-canvas-panel,
.p-toast, .actionbar, .litegraph-minimap, .p-dialog-mask, [data-testid=minimap] { visibility: hidden !important }
"""


def empty_models(folder: Path) -> None:
    """Put an empty file in the place of each model, so that no node is marked as incomplete."""
    for name, (kind, *_) in FILES.items():
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def take(page: Any, kind: str) -> Image.Image:
    """Return the picture of the graph's node of this kind, with its surroundings."""
    page.evaluate(
        """kind => { const node = app.graph._nodes.find(n => n.comfyClass === kind), { ds } = app.canvas;
            ds.scale = 1; ds.offset = [200 - node.pos[0], 150 - node.pos[1]]; app.canvas.setDirty(true, true) }""",
        kind,
    )
    page.wait_for_timeout(700)
    number = page.evaluate("kind => String(app.graph._nodes.find(n => n.comfyClass === kind).id)", kind)
    box = page.locator(f'[data-node-id="{number}"]').first.bounding_box()
    clip = {
        "x": max(0, box["x"] - AROUND[0]),
        "y": max(0, box["y"] - AROUND[1]),
        "width": min(MOST_PIXELS[0], box["width"] + 2 * AROUND[0]),
        "height": min(MOST_PIXELS[1], box["height"] + 2 * AROUND[1]),
    }
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def take_all(page: Any, url: str) -> None:
    """Write the pictures of all nodes of the pack."""
    page.goto(url)
    page.wait_for_selector("body[data-infinitetalk=ready]", timeout=180_000)
    page.wait_for_timeout(2000)
    page.evaluate("async () => { await app.extensionManager.command.execute('Workspace.ToggleFocusMode') }")
    page.add_style_tag(content=HIDE)
    wanted = [name for name in object_info.stored() if name.startswith(object_info.PACK_PREFIX)]
    PICTURES.mkdir(exist_ok=True)
    for template in (*TEMPLATES, None):
        if template:
            saved = json.loads((REPO / "workflows" / f"{template}.json").read_text(encoding="utf-8"))
            saved["extra"].pop("linearMode", None)
            page.evaluate("async saved => { await app.loadGraphData(saved) }", saved)
        else:  # what no template shows
            page.evaluate(
                """kinds => { app.graph.clear(); let x = 0; for (const kind of kinds) {
                    const node = LiteGraph.createNode(kind); node.pos = [x, 0]; x += 900; app.graph.add(node) } }""",
                wanted,
            )
        page.wait_for_timeout(2500)
        there = page.evaluate("() => app.graph._nodes.map(n => n.comfyClass)")
        for kind in [kind for kind in wanted if kind in there]:
            path = PICTURES / f"{kind}.jpg"
            take(page, kind).save(path, quality=QUALITY, optimize=True)
            print(f"{path.relative_to(REPO)}: {path.stat().st_size / 1000:.0f} kB", flush=True)
            wanted.remove(kind)


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder, with main.py in it")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="Python that runs it")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        base = Path(scratch)
        place_samples(REPO / "samples", base / "input")
        empty_models(base / "models")
        settings = base / "user" / "default" / "comfy.settings.json"
        settings.parent.mkdir(parents=True)
        chosen = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.VueNodes.Enabled": True}
        settings.write_text(json.dumps(chosen))
        with ComfyServer(options.python, options.comfyui, base, pack=REPO) as server:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.set_default_timeout(180_000)
            take_all(page, server.url)
            browser.close()


if __name__ == "__main__":
    main()
