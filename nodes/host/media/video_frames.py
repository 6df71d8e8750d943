"""Reads frames of a VIDEO as IMAGE."""

from __future__ import annotations

from typing import Any

import comfy.utils
import psutil
from comfy.model_management import throw_exception_if_processing_interrupted
from torch import Tensor

from ....infinitetalk_core.video.frames import read_batch, say_memory
from ....infinitetalk_core.video.trim import cut
from ..messages import say
from .video import source_of


def frames_of(video: Any, start_seconds: float, seconds: float) -> Tensor:
    """Return this part of a VIDEO as IMAGE (F, H, W, 3) at 25 frames per second.

    Reports first how much memory it takes.
    """
    source = source_of(None, video)
    try:
        part = cut(source, start_seconds, seconds)
        say(say_memory(part))
        bar = comfy.utils.ProgressBar(part.length)

        def report(done: int) -> None:
            throw_exception_if_processing_interrupted()
            bar.update_absolute(done, part.length)

        return read_batch(part, psutil.virtual_memory().available, report)
    finally:
        source.close()
