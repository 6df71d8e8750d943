"""InfiniteTalk for ComfyUI: dub a video, or animate a picture, to a voice, for as long as the voice lasts."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
