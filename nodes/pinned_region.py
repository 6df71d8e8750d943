"""Node for pinned regions: outside the mask the output equals the source."""

from comfy_api.latest import io

from ..infinitetalk_core.chunks.pinned import Pinned
from .inputs import checked
from .types import CATEGORY, PinnedType, search_aliases


class PinnedRegion(io.ComfyNode):
    """Restrict generation to the area of a MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkPinnedRegion",
            display_name="InfiniteTalk Pinned Region",
            category=CATEGORY,
            **search_aliases("mask", "face only", "inpaint"),
            description="Only what the mask covers may change, such as the face; everything else stays the source, "
            "pixel by pixel. Connect it to the Chunk Sampler.",
            inputs=[
                io.Mask.Input(
                    "mask",
                    tooltip="White where the video may change: the head with some room around it. One mask for the "
                    "whole video, or one for each frame of the source at 25 a second. Same size as the source.",
                ),
                io.Float.Input(
                    "feather",
                    default=16.0,
                    min=0.0,
                    max=256.0,
                    step=1.0,
                    tooltip="Pixels outside the mask over which the video fades into the source.",
                ),
            ],
            outputs=[PinnedType.Output("pinned", display_name="pinned")],
        )

    @classmethod
    @checked
    def execute(cls, mask, feather: float) -> io.NodeOutput:
        """Return the mask and the feather as `Pinned`."""
        return io.NodeOutput(Pinned(mask, feather))
