"""Node for camera control: Uni3C follows the camera of the source, of another video or of a rendered path."""

from comfy_api.latest import io

from ..infinitetalk_core.chunks.camera_control import CameraControl
from ..infinitetalk_core.errors import InputError
from ..infinitetalk_core.fingerprint import Component
from .host.media.camera_guides import filmed_guide
from .host.model.shared_models import fingerprint_of
from .inputs import checked
from .types import CATEGORY, CameraPathType, CameraType, Uni3CType, search_aliases


class CameraControlNode(io.ComfyNode):
    """Combine a Uni3C ControlNet and its guidance into a `CameraControl`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkUni3CCamera",
            display_name="InfiniteTalk Uni3C Camera",
            category=CATEGORY,
            **search_aliases("camera control", "camera motion"),
            description="Makes the video follow a camera. Without a guidance video and a path it is the source's own. "
            "Connect it to the Chunk Sampler.",
            inputs=[
                Uni3CType.Input("uni3c", tooltip="From the InfiniteTalk Uni3C Loader."),
                CameraPathType.Input(
                    "path", optional=True, tooltip="From Camera Path: a camera of your own around a picture."
                ),
                io.Video.Input(
                    "guidance_video",
                    optional=True,
                    tooltip="A video whose camera is followed, any size, length and rate; read by time. It holds its "
                    "last frame when the speech is longer.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="How strongly the camera is followed. Lower it when the background is distorted.",
                ),
                *(
                    io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)
                    for name, default, tooltip in (
                        ("start", 0.0, "Share of the steps after which it begins to act."),
                        (
                            "end",
                            1.0,
                            "Share of the steps after which it stops. The camera is settled early: 0.3 helps.",
                        ),
                    )
                ),
            ],
            outputs=[CameraType.Output("camera", display_name="camera")],
        )

    @classmethod
    @checked
    def execute(cls, uni3c, strength: float, start: float, end: float, path=None, guidance_video=None) -> io.NodeOutput:
        """Return the `CameraControl`. Raises InputError if both a path and a guidance video are connected."""
        if path is not None and guidance_video is not None:
            raise InputError("connect a camera path or a guidance video, not both")
        guide = path if guidance_video is None else filmed_guide(guidance_video)
        return io.NodeOutput(CameraControl(Component(uni3c, fingerprint_of(uni3c)), guide, strength, start, end))
