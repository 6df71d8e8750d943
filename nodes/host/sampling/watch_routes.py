"""The two routes of a page that watches a run: what there is, and a piece of its video."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .watching import RunWatch

RUN, CLIP = "/infinitetalk/run", "/infinitetalk/clip"
# A piece is encoded when a page asks for it. No cache keeps it: that would be a second copy of the video on a disk.
_NOT_KEPT = {"Cache-Control": "no-store"}


def add_routes(watch: RunWatch) -> None:
    """Add the routes to ComfyUI's server, if it runs as one."""
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    encoding = ThreadPoolExecutor(1, thread_name_prefix="infinitetalk-clip")

    async def state(request: Any) -> Any:
        """Answer with a run by its id or its place: what came after its first `since` entries."""
        asked = request.query
        if "run" in asked:
            found = watch.find(asked["run"])
        else:
            found = watch.latest(asked.get("workflow", ""), asked.get("node", ""), asked.get("client", ""))
        since = asked.get("since", "0")
        known = int(since) if since.isascii() and since.isdecimal() and len(since) < 10 else 0
        return web.json_response({} if found is None else found.to_json(known), headers=_NOT_KEPT)

    async def clip(request: Any) -> Any:
        """Answer with the frames and the sound of a chunk, counted from 0."""
        found, index = watch.find(request.query.get("run", "")), request.query.get("chunk", "")
        if found is None or not (index.isascii() and index.isdecimal() and len(index) < 10):
            return web.Response(status=404)
        made = await asyncio.get_running_loop().run_in_executor(encoding, found.clip, int(index))
        if made is None:  # not an error: the run has just ended, or the files are being replaced by a group
            return web.Response(status=204, headers=_NOT_KEPT)
        data, kind = made
        return web.Response(body=data, headers={"Content-Type": kind, **_NOT_KEPT})

    server.routes.get(RUN)(state)
    server.routes.get(CLIP)(clip)
