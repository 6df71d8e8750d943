"""Node for SDEdit: the noise level from which the source is denoised, for each chunk."""

from comfy_api.latest import io

from ..infinitetalk_core.sampling.sdedit import parse_strengths
from .inputs import checked
from .types import CATEGORY, SDEditType, advanced, search_aliases


class SDEditStrength(io.ComfyNode):
    """Set the SDEdit strength, for all chunks or for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkSDEditStrength",
            display_name="InfiniteTalk SDEdit Strength",
            category=CATEGORY,
            **search_aliases("denoise", "video to video", "v2v"),
            description="Starts from the noised source instead of noise, so that its camera and its motion show "
            "through. Connect it to the Chunk Sampler.",
            inputs=[
                io.Float.Input(
                    "strength",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1: off. 0.95: a hint of the source's camera. 0.9: camera and background follow. Below "
                    "0.8 the lips begin to follow the source too. 0: the source itself.",
                ),
                advanced(
                    io.String.Input(
                        "per_chunk",
                        default="",
                        tooltip="Strengths for each chunk, such as 0.95, 0.9, 0.9; the last one goes on. Empty: the "
                        "strength above for all.",
                    )
                ),
            ],
            outputs=[SDEditType.Output("sdedit", display_name="sdedit")],
        )

    @classmethod
    @checked
    def execute(cls, strength: float, per_chunk: str = "") -> io.NodeOutput:
        """Return the strengths as a tuple. The last one applies to all further chunks."""
        return io.NodeOutput(parse_strengths(per_chunk) or parse_strengths(str(strength)))
