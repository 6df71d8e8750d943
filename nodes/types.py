"""Connection types of the pack. All others are ComfyUI's: MODEL, VAE, AUDIO, IMAGE, VIDEO, SIGMAS …"""

import dataclasses
from collections.abc import Mapping

from comfy_api.latest import io

CATEGORY = "video/infinitetalk"

AudioEncoder = io.Custom("INFINITETALK_AUDIO_ENCODER")  # infinitetalk_core.audio.wav2vec.SpeechEncoder, patched
SpeechType = io.Custom("INFINITETALK_SPEECH")  # infinitetalk_core.speech.Speech
ReferenceType = io.Custom("INFINITETALK_REFERENCE")  # infinitetalk_core.chunks.job.Reference
GuidanceType = io.Custom("INFINITETALK_GUIDANCE")  # infinitetalk_core.sampling.settings.SamplingSettings

SDEditType = io.Custom("INFINITETALK_SDEDIT")  # tuple of strengths
PinnedType = io.Custom("INFINITETALK_PINNED")  # infinitetalk_core.chunks.pinned.Pinned
VideoFormatType = io.Custom("INFINITETALK_VIDEO_FORMAT")  # infinitetalk_core.video.format.VideoFormat

Uni3CType = io.Custom("INFINITETALK_UNI3C")  # ModelPatcher of infinitetalk_core.model.uni3c.Uni3C
CameraPathType = io.Custom("INFINITETALK_CAMERA_PATH")  # infinitetalk_core.chunks.camera_control.CameraGuide
CameraType = io.Custom("INFINITETALK_CAMERA")  # infinitetalk_core.chunks.camera_control.CameraControl


# What a user types who does not know the nodes' names.
USERS_WORDS = ("lip sync", "lipsync", "talking head", "talking avatar", "dub", "wav2vec")


def search_aliases(*names: str) -> dict[str, list[str]]:
    """Fields of a schema: other words by which the node is found in the search, where ComfyUI knows them (newer than
    0.3.75, which searches names only)."""
    known = any(field.name == "search_aliases" for field in dataclasses.fields(io.Schema))
    return {"search_aliases": list(dict.fromkeys(names))} if known else {}


def standing_for(choice: io.Combo.Input, numbers: Mapping[str, Mapping[str, float]]) -> io.Combo.Input:
    """Give the frontend the numbers of other inputs that an option of `choice` stands for, by option and input.

    js/preset_numbers.js writes them there. An option without numbers leaves those inputs to the user.
    """
    choice.extra_dict = {**(getattr(choice, "extra_dict", None) or {}), "numbers_of_options": numbers}
    return choice


def advanced(widget: io.Input) -> io.Input:
    """Mark `widget` as advanced (shown behind "show advanced") and optional, so that API clients may leave it out.

    ComfyUI 0.3.75 has no such keyword, so the mark goes into `extra_dict`.
    """
    widget.optional = True
    widget.extra_dict = {**(getattr(widget, "extra_dict", None) or {}), "advanced": True}
    return widget
