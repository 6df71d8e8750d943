"""What the video looks like: the picture or the source video, its size, and which frame each chunk looks at."""

from comfy_api.latest import io

from ..infinitetalk_core.chunks.dub import Reference
from ..infinitetalk_core.chunks.reference import AfterEnd, Policy
from ..infinitetalk_core.chunks.sizes import Size, output_size
from .host.video import source_of
from .types import CATEGORY, ReferenceType, advanced, choice

POLICIES = {p.value: p for p in Policy}
AFTER_END = {a.value: a for a in AfterEnd}
SIZES = {s.value: s for s in Size}


class ReferencePicker(io.ComfyNode):
    """IMAGE or VIDEO → reference frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The form."""
        return io.Schema(
            node_id="InfiniteTalkReferencePicker",
            display_name="InfiniteTalk Reference Picker",
            category=CATEGORY,
            description="Chooses the frames that give the video its person, background and camera.",
            inputs=[
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to animate, or the frames of a video at 25 a second. For long videos connect "
                    "the VIDEO instead: it is read frame by frame from the file.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The video to dub, any length and frame rate. Only the frames that are needed are read.",
                ),
                io.Combo.Input(
                    "policy",
                    options=["auto", *POLICIES],
                    default="auto",
                    tooltip="Which frame each chunk looks at. still: always the first (a portrait). chunk start: the "
                    "source at the moment the chunk begins (video dubbing, as in the paper). auto: still for one "
                    "picture, chunk start for a video.",
                ),
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default=Size.CLASS_480P.value,
                    tooltip="480p and 720p: the trained size nearest to the source's shape (about 640 x 640 or "
                    "960 x 960 pixels). custom: the width and height below. The source is scaled and cut to fit.",
                ),
                io.Int.Input(
                    "width",
                    default=832,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16. Only for size custom.",
                ),
                io.Int.Input(
                    "height",
                    default=480,
                    min=16,
                    max=4096,
                    step=16,
                    tooltip="Pixels, a multiple of 16. Only for size custom.",
                ),
                advanced(
                    io.Combo.Input(
                        "after_end",
                        options=list(AFTER_END),
                        default=AfterEnd.HOLD.value,
                        tooltip="What the source shows when the speech goes on after its end.",
                    )
                ),
            ],
            outputs=[ReferenceType.Output("reference", display_name="reference")],
        )

    @classmethod
    def execute(
        cls,
        policy: str,
        size: str,
        width: int,
        height: int,
        after_end: str = AfterEnd.HOLD.value,
        image=None,
        video=None,
    ) -> io.NodeOutput:
        """Open the source."""
        source = source_of(image, video)
        if policy == "auto":
            picked = Policy.STILL if source.length == 1 else Policy.CHUNK_START
        else:
            picked = POLICIES[choice(policy, ["auto", *POLICIES], "policy")]
        fitted = output_size(SIZES[choice(size, list(SIZES), "size")], (source.height, source.width), (height, width))
        ends = AFTER_END[choice(after_end, list(AFTER_END), "after_end")]
        return io.NodeOutput(Reference(source, *fitted, policy=picked, after_end=ends))
