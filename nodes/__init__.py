"""The stages as ComfyUI nodes (V3 schema), one file a stage."""

from comfy_api.latest import ComfyExtension, io

from .audio_encoder_loader import AudioEncoderLoader
from .camera_control import CameraControlNode
from .camera_path import CameraPath
from .chunk_sampler import ChunkSampler
from .guidance import GuidanceSettings
from .host.files import register_folders
from .load_path import LoadSource, LoadVoice
from .model_loader import ModelLoader
from .pinned_region import PinnedRegion
from .reference_picker import ReferencePicker
from .sdedit import SDEditStrength
from .speakers import Speakers
from .speech_encode import SpeechEncode
from .unfinished_runs import UnfinishedRuns
from .uni3c_loader import Uni3CLoader
from .video_format import VideoFormatNode
from .video_frames import VideoFrames

NODES: list[type[io.ComfyNode]] = [
    LoadSource,
    LoadVoice,
    AudioEncoderLoader,
    SpeechEncode,
    Speakers,
    ModelLoader,
    ReferencePicker,
    SDEditStrength,
    PinnedRegion,
    Uni3CLoader,
    CameraControlNode,
    CameraPath,
    GuidanceSettings,
    VideoFormatNode,
    ChunkSampler,
    VideoFrames,
    UnfinishedRuns,
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
