"""Node for the encoding of the video file."""

from comfy_api.latest import io

from ..infinitetalk_core.video.format import Codec, VideoFormat
from .inputs import checked
from .types import CATEGORY, VideoFormatType, search_aliases

CODECS = [codec.value for codec in Codec]
BIT_DEPTHS = ["8 bit", "10 bit"]


class VideoFormatNode(io.ComfyNode):
    """Choose codec, bit depth and quality of the Chunk Sampler's file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkVideoFormat",
            display_name="InfiniteTalk Video Format",
            category=CATEGORY,
            **search_aliases("codec", "H.264", "HEVC", "AV1", "crf"),
            description="How the video file is encoded: codec, bits a color, quality. Always an MP4 with 25 frames a "
            "second. Connect it to the Chunk Sampler.",
            inputs=[
                io.Combo.Input(
                    "codec",
                    options=CODECS,
                    default=CODECS[0],
                    tooltip="H.264 plays everywhere. HEVC is smaller; many browsers do not show it. AV1 is smaller "
                    "too, and plays in browsers. lossless gives back every 8-bit picture exactly, in files 20 times "
                    "as large that some editors do not open.",
                ),
                io.Combo.Input(
                    "bit_depth",
                    options=BIT_DEPTHS,
                    default=BIT_DEPTHS[0],
                    tooltip="10 bit keeps smooth gradients such as skies free of bands, for grading; some players and "
                    "editors refuse it in H.264.",
                ),
                io.Int.Input(
                    "crf",
                    default=18,
                    min=0,
                    max=63,
                    tooltip="Quality, lower is better: 18 looks like the original in H.264, 20 in HEVC, 24 in AV1; 5 "
                    "more is half the size. H.264 and HEVC end at 51.",
                ),
            ],
            outputs=[VideoFormatType.Output("video_format", display_name="video_format")],
        )

    @classmethod
    @checked
    def execute(cls, codec: str, bit_depth: str, crf: int) -> io.NodeOutput:
        """Return the checked `VideoFormat`."""
        bits = 10 if bit_depth == BIT_DEPTHS[1] else 8
        return io.NodeOutput(VideoFormat(Codec(codec), bits, crf).check())
