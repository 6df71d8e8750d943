"""Node that encodes the speech of two people in one picture, each with a voice and an area."""

from comfy_api.latest import io

from ..infinitetalk_core.audio.sound import Sound
from ..infinitetalk_core.speakers import areas_of
from ..infinitetalk_core.speech import Timing, encode_speakers
from .host.media.audio import HostAudioEncoder
from .host.model.model_files import temp_folder
from .inputs import checked
from .types import CATEGORY, AudioEncoder, SpeechType, advanced, search_aliases

TIMINGS = {t.value: t for t in Timing}


class Speakers(io.ComfyNode):
    """Encode two AUDIO tracks as the speech of two people."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        mask_help = (
            "Paint it over the person's face and shoulders on the picture that you dub (same size). Without masks "
            "and boxes, person 1 is the left half of the picture and person 2 the right half."
        )
        box_help = (
            "The person's place as x0, y0, x1, y1 in pixels of the picture, for example 120, 80, 420, 600. "
            "Leave it empty to use the masks or the halves."
        )
        return io.Schema(
            node_id="InfiniteTalkSpeakers",
            display_name="InfiniteTalk Speakers",
            category=CATEGORY,
            **search_aliases("MultiTalk", "two people", "dialogue", "multi speaker"),
            description="Two people who speak, together or in turn. Leave a voice unconnected for a person who "
            "is silent.",
            inputs=[
                AudioEncoder.Input("encoder", tooltip="From the InfiniteTalk Audio Encoder Loader."),
                io.Audio.Input("audio_1", optional=True, tooltip="What person 1 says."),
                io.Audio.Input("audio_2", optional=True, tooltip="What person 2 says."),
                io.Combo.Input(
                    "timing",
                    options=list(TIMINGS),
                    default=Timing.TOGETHER.value,
                    tooltip="together: both tracks start at once; the shorter one is followed by silence. "
                    "one after the other: person 2 starts when person 1 has finished.",
                ),
                io.Mask.Input("mask_1", optional=True, tooltip=f"Where person 1 is. {mask_help}"),
                io.Mask.Input("mask_2", optional=True, tooltip=f"Where person 2 is. {mask_help}"),
                advanced(io.String.Input("box_1", default="", optional=True, tooltip=box_help)),
                advanced(io.String.Input("box_2", default="", optional=True, tooltip=box_help)),
            ],
            outputs=[SpeechType.Output("speech", display_name="speech")],
        )

    @classmethod
    @checked
    def execute(
        cls,
        encoder: HostAudioEncoder,
        timing: str,
        audio_1: Sound | None = None,
        audio_2: Sound | None = None,
        mask_1=None,
        mask_2=None,
        box_1: str = "",
        box_2: str = "",
    ) -> io.NodeOutput:
        """Encode both tracks; the areas come from the masks, the boxes or the halves of the picture."""
        areas = areas_of((mask_1, mask_2), (box_1, box_2))
        return io.NodeOutput(encode_speakers(encoder.encode, (audio_1, audio_2), TIMINGS[timing], areas, temp_folder()))
