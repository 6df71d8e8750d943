"""The samples that templates ask for, put into ComfyUI's input folder."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import folder_paths

ROUTE = "/infinitetalk/samples"
FOLDER = Path(__file__).resolve().parents[3] / "samples"
SUFFIXES = (".png", ".wav", ".mp4")
MOST_NAMES = 100


def place_samples(asked: list[str], samples: Path, folder: Path) -> tuple[list[str], str]:
    """Copy the samples that are asked for and missing into `folder`; a file that is there stays as it is.

    asked: names; others than those of samples are left out. Returns the names of new files, and what went wrong in a
    sentence, or "".
    """
    known = {path.name: path for path in samples.glob("*") if path.suffix in SUFFIXES}
    placed: list[str] = []
    for name in dict.fromkeys(name for name in asked if name in known):
        target = folder / name
        try:
            with target.open("xb") as file:
                placed.append(name)
                file.write(known[name].read_bytes())
        except FileExistsError:
            continue
        except OSError as error:
            if name in placed:  # begun, such as on a full disk
                placed.remove(name)
                with contextlib.suppress(OSError):
                    target.unlink()
            return placed, (
                f"The sample {name} could not be put into ComfyUI's input folder ({error.strerror or error}): choose "
                "your own file in the template, or make the folder writable and open the template again."
            )
    return placed, ""


def add_route() -> None:
    """Add the route to ComfyUI's server, if it runs as one."""
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    async def place(request: Any) -> Any:
        """Answer {"files": [name, …]} with the new files and what went wrong."""
        try:
            asked = (await request.json())["files"]
        except (ValueError, KeyError, TypeError):
            asked = None
        if not isinstance(asked, list) or len(asked) > MOST_NAMES or not all(isinstance(name, str) for name in asked):
            return web.json_response({"error": 'send {"files": [names of samples]}'}, status=400)
        folder = Path(folder_paths.get_input_directory())
        placed, problem = await asyncio.to_thread(place_samples, asked, FOLDER, folder)
        return web.json_response({"placed": placed, "problem": problem})

    server.routes.post(ROUTE)(place)
