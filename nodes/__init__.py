"""The pack's ComfyUI nodes (V3 schema), one file per node."""

from comfy_api.latest import ComfyExtension, io

from .audio_encoder_loader import AudioEncoderLoader
from .camera_control import CameraControlNode
from .camera_path import CameraPath
from .chunk_sampler import ChunkSampler
from .guidance import GuidanceSettings
from .host.blueprints import add_search_words
from .host.media.connected_sampler import complete_prompts
from .host.media.sample_files import add_route as add_sample_route
from .host.model.model_files import register_folders
from .host.model.shared_models import SharedModels, empty_on_free
from .host.sampling.finished_videos import FinishedVideos
from .host.sampling.watch_routes import add_routes
from .host.sampling.watching import RunWatch, send_to_pages
from .load_path import LoadSource, LoadVoice
from .model_cache import ModelCacheNode
from .model_loader import ModelLoader
from .pinned_region import PinnedRegion
from .quality import Quality
from .reference_picker import ReferencePicker
from .sdedit import SDEditStrength
from .shared import ModelNode
from .speakers import Speakers
from .speech_encode import SpeechEncode
from .step_cache import StepCacheNode
from .types import USERS_WORDS
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
    StepCacheNode,
    ReferencePicker,
    SDEditStrength,
    PinnedRegion,
    Uni3CLoader,
    CameraControlNode,
    CameraPath,
    Quality,
    GuidanceSettings,
    VideoFormatNode,
    ChunkSampler,
    ModelCacheNode,
    VideoFrames,
    UnfinishedRuns,
]


class InfiniteTalkExtension(ComfyExtension):
    """The extension: all nodes of the pack and the `SharedModels` that they use."""

    def __init__(self) -> None:
        self.models = SharedModels()
        # ComfyUI never instantiates node classes, so the shared models are set as a class attribute here.
        ModelNode.shared = self.models
        ChunkSampler.videos = FinishedVideos()
        self.watch = ChunkSampler.watch = RunWatch(send_to_pages)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the node classes, in the order in which a workflow uses them."""
        return NODES


async def comfy_entrypoint() -> ComfyExtension:
    """Create the extension. ComfyUI calls this when it loads the pack."""
    register_folders()
    complete_prompts()
    add_sample_route()
    await add_search_words(USERS_WORDS)
    extension = InfiniteTalkExtension()
    empty_on_free(extension.models)
    add_routes(extension.watch)
    return extension
