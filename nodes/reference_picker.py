"""Node that chooses the reference frame of each chunk from a picture or a source video, and the size of the output."""

from comfy_api.latest import io

from ..infinitetalk_core.chunks.job import Reference
from ..infinitetalk_core.chunks.reference import AfterEnd, Policy, ReferenceSettings, parse_times
from ..infinitetalk_core.chunks.sizes import Size, output_size
from .host.media.connected_sampler import planned_lengths
from .host.media.contact_sheet import Picks, cuts_of, shown
from .host.media.video import source_of
from .host.messages import say
from .inputs import checked
from .shared import ModelNode
from .types import CATEGORY, ReferenceType, SpeechType, advanced, search_aliases

POLICIES = {p.value: p for p in Policy}
AFTER_END = {a.value: a for a in AfterEnd}
SIZES = {s.value: s for s in Size}

POLICY_HELP = """Which source frame is the reference of each chunk. auto: still for a picture, chunk start for a video.
Simple: still (the first), chunk start (the source at that moment), previous output (the last frame made; drifts).
Recommended to try: neighbor (just outside the chunk, M3 of the paper), adaptive (the neighbor that control asks for).
Strict or free: same chunk, first or last of chunk, first and last copy poses; distant (over 5 s away) drifts.
by hand: the times below."""


class ReferencePicker(ModelNode):
    """Choose reference frames from an IMAGE or a VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkReferencePicker",
            display_name="InfiniteTalk Reference Picker",
            category=CATEGORY,
            **search_aliases("reference frame", "source video", "video dubbing", "dub"),
            description="Chooses the frames that give the video its person, background and camera, and shows them "
            "with the chunks to come. Run alone it takes about a second.",
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
                    tooltip="The video to dub, any length and frame rate, read frame by frame from its file.",
                ),
                SpeechType.Input(
                    "speech",
                    optional=True,
                    tooltip="The speech whose chunks are shown. Where the Chunk Sampler is connected it is that of the "
                    "sampler by itself. It does not change the picks.",
                ),
                io.Combo.Input("policy", options=["auto", *POLICIES], default="auto", tooltip=POLICY_HELP),
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default=Size.CLASS_480P.value,
                    tooltip="480p and 720p: the trained size nearest to the source's shape (about 640 x 640 or "
                    "960 x 960 pixels). custom: the width and height below. The source is scaled and cut to fit.",
                ),
                *(
                    io.Int.Input(
                        name,
                        default=default,
                        min=16,
                        max=4096,
                        step=16,
                        tooltip="Pixels, a multiple of 16. Only for size custom.",
                    )
                    for name, default in (("width", 832), ("height", 480))
                ),
                advanced(
                    io.Combo.Input(
                        "after_end",
                        options=list(AFTER_END),
                        default=AfterEnd.HOLD.value,
                        tooltip="What the source shows when the speech goes on after its end.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "find_cuts",
                        default=True,
                        tooltip="Find the scene cuts of a video: no chunk looks or continues across one.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "radius_seconds",
                        default=1.0,
                        min=0.04,
                        max=60.0,
                        step=0.04,
                        tooltip="How far outside the chunk a neighbor may be. For neighbor and adaptive.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "control",
                        default=0.5,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        tooltip="Only for adaptive. 0: the neighbor most like the context frames, which holds weakly; "
                        "1: the one least like them, which pulls strongly back to the source.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "times",
                        default="",
                        tooltip="Only for by hand: a time of the source for each chunk, such as 0, 2.5, 1:07.",
                    )
                ),
                advanced(
                    io.Int.Input("pick_seed", default=0, min=0, max=2**31 - 1, tooltip="For the random policies.")
                ),
                io.Audio.Input(
                    "voice",
                    optional=True,
                    tooltip="The voice as sound: its chunks are shown at once, before any model is loaded. Needed only "
                    "where the Chunk Sampler is not connected, which tells its voice by itself.",
                ),
            ],
            outputs=[
                ReferenceType.Output("reference", display_name="reference"),
                io.Image.Output("picks", display_name="picks"),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    @checked
    def execute(  # noqa: PLR0913 (one parameter an input)
        cls,
        policy: str,
        size: str,
        width: int,
        height: int,
        after_end: str = AfterEnd.HOLD.value,
        find_cuts: bool = True,
        radius_seconds: float = 1.0,
        control: float = 0.5,
        times: str = "",
        pick_seed: int = 0,
        image=None,
        video=None,
        speech=None,
        voice=None,
    ) -> io.NodeOutput:
        """Return the `Reference` and a contact sheet of the chosen frames."""
        source = source_of(image, video, cls.shared.files if cls.shared else None)
        if policy == "auto":
            policy = (Policy.STILL if source.length == 1 else Policy.CHUNK_START).value
        settings = ReferenceSettings(
            policy=POLICIES[policy],
            after_end=AFTER_END[after_end],
            radius_seconds=radius_seconds,
            seed=pick_seed,
            control=control,
            times_seconds=parse_times(times),
        )
        shape = output_size(SIZES[size], (source.height, source.width), (height, width))
        sound = voice if speech is None else speech
        frames = None if sound is None else sound.frames
        reference = Reference(source, *shape, settings, cuts_of(source, settings, frames) if find_cuts else ())
        hidden = cls.hidden
        picks = Picks(reference, frames, *planned_lengths(hidden and hidden.prompt, hidden and hidden.unique_id))
        sheet = picks.sheet()
        say(picks.in_words())
        return io.NodeOutput(reference, sheet, ui=shown(picks, sheet, cls))
