"""The stages as ComfyUI nodes (V3 schema), one file a stage."""

from comfy_api.latest import ComfyExtension, io

from .audio_encoder_loader import AudioEncoderLoader
from .chunk_sampler import ChunkSampler
from .guidance import GuidanceSettings
from .host.files import register_folders
from .model_loader import ModelLoader
from .reference_picker import ReferencePicker
from .speakers import Speakers
from .speech_encode import SpeechEncode

NODES: list[type[io.ComfyNode]] = [
    AudioEncoderLoader,
    SpeechEncode,
    Speakers,
    ModelLoader,
    ReferencePicker,
    GuidanceSettings,
    ChunkSampler,
]


class InfiniteTalkExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes, in the order of the stages."""
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls when it loads the pack."""
    register_folders()
    return InfiniteTalkExtension()
