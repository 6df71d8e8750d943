"""What each connection type takes: by type, the function that checks a value of another node and converts it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..infinitetalk_core.camera.guide import PathGuide
from ..infinitetalk_core.chunks.camera_control import CameraControl, FilmedGuide
from ..infinitetalk_core.chunks.job import Reference, check_levels
from ..infinitetalk_core.chunks.pinned import Pinned
from ..infinitetalk_core.errors import InputError
from ..infinitetalk_core.model.uni3c import Uni3C
from ..infinitetalk_core.sampling.settings import SamplingSettings
from ..infinitetalk_core.speech import Speech
from ..infinitetalk_core.video.format import VideoFormat
from .host.media.audio import HostAudioEncoder, sound_of
from .host.media.foreign import layers, tensor_of, unwrapped, what_is
from .host.media.foreign_pictures import as_images, as_mask
from .types import (
    AudioEncoder,
    CameraPathType,
    CameraType,
    GuidanceType,
    PinnedType,
    ReferenceType,
    SDEditType,
    SpeechType,
    Uni3CType,
    VideoFormatType,
)

Convert = Callable[[Any, str], Any]  # (value, name of the input) -> the value, or InputError


def having(what: str, *attributes: str) -> Convert:
    """Return the check that a value has these attributes, which no other type has. what: the type, for the error."""
    return _checking(what, lambda value: all(hasattr(value, name) for name in attributes))


def being(what: str, *classes: type) -> Convert:
    """Return the check that a value is of one of these classes. what: the type, for the error."""
    return _checking(what, lambda value: isinstance(value, classes))


def _checking(what: str, is_one: Callable[[Any], bool]) -> Convert:
    def check(value: Any, name: str) -> Any:
        for candidate in layers(value):
            if is_one(candidate):
                return candidate
        raise InputError(f"{name} takes {what}, and got {what_is(value)}; connect it to the node that makes one")

    return check


def conditioning(value: Any, name: str) -> Any:
    """Return a CONDITIONING: a list of [tensor, dict]. Raises InputError also for NaN in it."""
    parts = value if isinstance(value, (list, tuple)) else [None]
    for part in parts:
        if not (
            isinstance(part, (list, tuple))
            and len(part) == 2
            and isinstance(part[0], Tensor)
            and isinstance(part[1], dict)
        ):
            raise InputError(f"{name} takes a text from CLIP Text Encode (CONDITIONING), and got {what_is(value)}")
        if not torch.isfinite(part[0]).all():
            raise InputError(
                f"{name} holds values that are no numbers (NaN or infinite); its text encoder went wrong: load it in "
                "another precision, or download it again"
            )
    return value


def sigmas(value: Any, name: str) -> Tensor:
    """Return noise levels as a tensor (steps + 1,) of their own; a list of numbers becomes one.

    Raises InputError unless they are a schedule that falls from 1 or less to 0. The tensor is copied, since some
    samplers write into it and other nodes hold it.
    """
    if isinstance(value, (list, tuple)) and not any(isinstance(each, (Tensor, list, tuple)) for each in value):
        numbers = [each for each in value if isinstance(each, (int, float))]
        value = torch.tensor(numbers, dtype=torch.float32) if value and len(numbers) == len(value) else value
    levels = tensor_of(unwrapped(value), name, "noise levels (SIGMAS)")
    if levels.ndim != 1 or levels.dtype is torch.bool:
        raise InputError(f"{name} takes noise levels one after the other (SIGMAS), and got {what_is(value)}")
    return check_levels(levels.detach().to("cpu", torch.float32, copy=True))


CONVERTERS: dict[str, Convert] = {
    "AUDIO": sound_of,
    "IMAGE": as_images,
    "MASK": as_mask,
    "VIDEO": having("a video (VIDEO)", "get_components", "get_dimensions"),
    "MODEL": having("a model (MODEL)", "model", "model_options", "clone", "get_model_object"),
    "VAE": having("a VAE", "latent_channels", "encode", "decode"),
    "CLIP_VISION": having("a CLIP vision model (CLIP_VISION)", "patcher", "image_size", "encode_image"),
    "CONDITIONING": conditioning,
    "SAMPLER": having("a sampler (SAMPLER)", "sample"),
    "SIGMAS": sigmas,
    AudioEncoder.io_type: being("an audio encoder from the InfiniteTalk Audio Encoder Loader", HostAudioEncoder),
    SpeechType.io_type: being("speech from InfiniteTalk Speech Encode or Speakers", Speech),
    ReferenceType.io_type: being("a reference from the InfiniteTalk Reference Picker", Reference),
    GuidanceType.io_type: being("settings from InfiniteTalk Guidance", SamplingSettings),
    SDEditType.io_type: _checking(
        "strengths from InfiniteTalk SDEdit Strength",
        lambda value: isinstance(value, tuple) and all(isinstance(x, float) and math.isfinite(x) for x in value),
    ),
    PinnedType.io_type: being("a region from InfiniteTalk Pinned Region", Pinned),
    VideoFormatType.io_type: being("a format from InfiniteTalk Video Format", VideoFormat),
    Uni3CType.io_type: _checking(
        "a ControlNet from the InfiniteTalk Uni3C Loader",
        lambda value: isinstance(getattr(value, "model", None), Uni3C),
    ),
    CameraPathType.io_type: being("a path from InfiniteTalk Camera Path", PathGuide, FilmedGuide),
    CameraType.io_type: being("a camera from InfiniteTalk Uni3C Camera", CameraControl),
}
