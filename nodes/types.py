"""The pack's own connection types. Everything else is ComfyUI's: MODEL, VAE, AUDIO, IMAGE, VIDEO, SIGMAS …"""

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
CameraPathType = io.Custom("INFINITETALK_CAMERA_PATH")  # infinitetalk_core.chunks.camera.CameraGuide
CameraType = io.Custom("INFINITETALK_CAMERA")  # infinitetalk_core.chunks.camera.CameraControl


def advanced(widget: io.Input) -> io.Input:
    """A rare input: behind "show advanced" (a keyword that ComfyUI 0.3.75 does not have), and API clients may leave
    it out."""
    widget.optional = True
    widget.extra_dict = {**(getattr(widget, "extra_dict", None) or {}), "advanced": True}
    return widget


def choice(value: str, allowed: list[str], what: str) -> str:
    """`value` if it is one of `allowed`: older ComfyUI does not check what an API client sends."""
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; got {value!r}")
    return value
