"""SDEdit strength: how much of the source shows through."""

from comfy_api.latest import io

from ..infinitetalk_core.sampling.sdedit import parse_strengths
from .types import CATEGORY, SDEditType, advanced


class SDEditStrength(io.ComfyNode):
    """A number → where denoising starts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The form."""
        return io.Schema(
            node_id="InfiniteTalkSDEditStrength",
            display_name="InfiniteTalk SDEdit Strength",
            category=CATEGORY,
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
    def execute(cls, strength: float, per_chunk: str = "") -> io.NodeOutput:
        """Check it."""
        return io.NodeOutput(parse_strengths(per_chunk) or parse_strengths(str(strength)))
