"""Node that encodes one voice as speech features."""

from comfy_api.latest import io

from ..infinitetalk_core.audio.sound import Sound
from ..infinitetalk_core.speech import encode_speech
from .host.media.audio import HostAudioEncoder
from .host.model.model_files import temp_folder
from .inputs import checked
from .types import CATEGORY, AudioEncoder, SpeechType, search_aliases


class SpeechEncode(io.ComfyNode):
    """Encode AUDIO as speech features, 25 per second."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkSpeechEncode",
            display_name="InfiniteTalk Speech Encode",
            category=CATEGORY,
            **search_aliases("wav2vec", "audio embeds", "lip sync", "lipsync", "MultiTalk"),
            description="Encodes one voice to speech features. The video becomes exactly as long as this sound.",
            inputs=[
                AudioEncoder.Input("encoder", tooltip="From the InfiniteTalk Audio Encoder Loader."),
                io.Audio.Input(
                    "audio",
                    tooltip="The voice: any length, rate and number of channels. Music or noise moves the lips too, "
                    "so clean speech is best.",
                ),
            ],
            outputs=[SpeechType.Output("speech", display_name="speech")],
        )

    @classmethod
    @checked
    def execute(cls, encoder: HostAudioEncoder, audio: Sound) -> io.NodeOutput:
        """Encode the voice."""
        return io.NodeOutput(encode_speech(encoder.encode, audio, temp_folder()))
