"""InfiniteTalk (arXiv 2508.14033): dubbing of videos of any length by speech. The engine, without ComfyUI.

What `__all__` names is the public interface; docs/python-api.md has an example.
"""

# ruff: noqa: F403, F405
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import *

__all__ = [
    "PRESETS",
    "AfterEnd",
    "Apg",
    "Area",
    "CameraControl",
    "Chunk",
    "ChunkOutput",
    "ColorHold",
    "Component",
    "ContextFrames",
    "FilmedGuide",
    "FrameSource",
    "Guidance",
    "HoldBy",
    "InfiniteTalkModel",
    "InputError",
    "Job",
    "Models",
    "Output",
    "PictureBatch",
    "Pinned",
    "PlannedChunk",
    "Policy",
    "Reference",
    "ReferenceSettings",
    "RunError",
    "Sampling",
    "SamplingSettings",
    "Sound",
    "Speech",
    "SpeechEncoder",
    "StepCaching",
    "Timing",
    "TorchBackend",
    "Uni3C",
    "VideoFile",
    "VideoFormat",
    "VideoVae",
    "WanVae",
    "dub",
    "encode_speakers",
    "encode_speech",
    "load_model",
    "load_speech_encoder",
    "load_uni3c",
    "load_vae",
    "open_source",
    "read_sound",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: the nodes import single modules, and few of those need transformers."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no public name {name!r}")
    from . import api

    return getattr(api, name)
