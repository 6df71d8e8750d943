"""Node that reads frames of a VIDEO as IMAGE, for nodes that need IMAGE."""

from comfy_api.latest import io

from .host.media.video_frames import frames_of
from .inputs import checked
from .types import CATEGORY, search_aliases


class VideoFrames(io.ComfyNode):
    """Read a part of a VIDEO as IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkVideoFrames",
            display_name="InfiniteTalk Video Frames",
            category=CATEGORY,
            **search_aliases("get video components", "video to images"),
            description="A part of a video as pictures, 25 a second, for nodes that take IMAGE. Says first how much "
            "memory they take, and stops before anything is read if there is less.",
            inputs=[
                io.Video.Input("video", tooltip="For instance the Chunk Sampler's. It is read from its file."),
                io.Float.Input(
                    "start_seconds",
                    default=0.0,
                    min=0.0,
                    max=360000.0,
                    step=0.04,
                    tooltip="Where the part begins.",
                ),
                io.Float.Input(
                    "seconds",
                    default=5.0,
                    min=0.0,
                    max=360000.0,
                    step=0.04,
                    tooltip="How long it is; 0 is up to the end. A second of 832 x 480 takes 0.12 GB of memory, one of "
                    "1280 x 720 0.28 GB.",
                ),
            ],
            outputs=[io.Image.Output("images", display_name="images")],
        )

    @classmethod
    @checked
    def execute(cls, video, start_seconds: float, seconds: float) -> io.NodeOutput:
        """Return the frames as IMAGE."""
        return io.NodeOutput(frames_of(video, start_seconds, seconds))
