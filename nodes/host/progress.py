"""Progress over the whole job: a bar, a line of text on the node, a preview picture."""

from __future__ import annotations

import logging
import time
from typing import Any

import comfy.utils
import latent_preview
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...infinitetalk_core.chunks.plan import Chunk
from ...infinitetalk_core.progress import describe_progress

log = logging.getLogger("infinitetalk")


class JobProgress:
    """Counts the steps of all chunks; every report also looks for an interrupt.

    Pictures: the newest finished frame after each chunk; in between the estimates of the steps, if ComfyUI's
    previews are switched on.
    """

    def __init__(self, model: Any, chunks: int, steps: int):
        self.chunks, self.steps = chunks, steps
        self.bar = comfy.utils.ProgressBar(chunks * steps)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.began = time.monotonic()
        self.done = 0

    def after_step(self, chunk: Chunk, step: int, clean: Tensor) -> None:
        """A step (from 0) of `chunk` is done; `clean` (1, 16, T, h, w) is its estimate."""
        throw_exception_if_processing_interrupted()
        self.done = chunk.index * self.steps + step + 1
        preview = None
        if self.previewer is not None:
            # The middle of the chunk: its beginning is held clean and would never change.
            middle = clean[:, :, clean.shape[2] // 2 :]
            preview = self.previewer.decode_latent_to_preview_image("JPEG", middle)
        self.bar.update_absolute(self.done, self.chunks * self.steps, preview)
        self._say(chunk.index, step + 1)

    def show(self, frame: Tensor) -> None:
        """A finished frame (H, W, 3), or the reference before there is one, as the preview."""
        picture = Image.fromarray((frame.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy())
        preview = ("JPEG", picture, latent_preview.MAX_PREVIEW_RESOLUTION)
        self.bar.update_absolute(self.done, self.chunks * self.steps, preview)

    def _say(self, chunk: int, step: int) -> None:
        elapsed = time.monotonic() - self.began
        left = elapsed / self.done * (self.chunks * self.steps - self.done)
        text = describe_progress(chunk + 1, self.chunks, step, self.steps, left)
        if step == self.steps:
            log.info("InfiniteTalk: %s", text)
        context = get_executing_context()
        if context is not None and PromptServer.instance is not None:
            PromptServer.instance.send_progress_text(text, context.node_id)
