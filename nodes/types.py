"""The pack's own connection types. Everything else is ComfyUI's: MODEL, VAE, AUDIO, IMAGE, VIDEO, SIGMAS …"""

from comfy_api.latest import io

CATEGORY = "video/infinitetalk"

AudioEncoder = io.Custom("INFINITETALK_AUDIO_ENCODER")  # infinitetalk_core.audio.wav2vec.SpeechEncoder, patched
SpeechType = io.Custom("INFINITETALK_SPEECH")  # infinitetalk_core.speech.Speech
ReferenceType = io.Custom("INFINITETALK_REFERENCE")  # infinitetalk_core.chunks.dub.Reference
GuidanceType = io.Custom("INFINITETALK_GUIDANCE")  # nodes.guidance.Settings


def advanced(widget: io.Input) -> io.Input:
    """Hide a rare input behind "show advanced"; the keyword for it does not exist in ComfyUI 0.3.75."""
    widget.extra_dict = {**(getattr(widget, "extra_dict", None) or {}), "advanced": True}
    return widget


def choice(value: str, allowed: list[str], what: str) -> str:
    """`value` if it is one of `allowed`: older ComfyUI does not check what an API client sends."""
    if value not in allowed:
        raise ValueError(f"{what} must be one of {', '.join(allowed)}; got {value!r}")
    return value
