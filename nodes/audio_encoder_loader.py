"""Node that loads the wav2vec 2.0 audio encoder."""

from comfy_api.latest import io

from .host.media.audio import load_audio_encoder
from .host.model.model_files import audio_encoder_path, audio_encoders
from .inputs import checked, text
from .shared import ModelNode, stamp_of_choice
from .types import CATEGORY, AudioEncoder, search_aliases


class AudioEncoderLoader(ModelNode):
    """Load a wav2vec 2.0 file or folder as an audio encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkAudioEncoderLoader",
            display_name="InfiniteTalk Audio Encoder Loader",
            category=CATEGORY,
            **search_aliases("wav2vec", "wav2vec2 loader", "lip sync", "MultiTalk"),
            description="Loads the wav2vec 2.0 model that encodes speech to features for InfiniteTalk.",
            inputs=[
                io.Combo.Input(
                    "audio_encoder",
                    options=audio_encoders(),
                    tooltip="A wav2vec 2.0 model from models/audio_encoders, models/wav2vec2 or models/transformers: "
                    "a .safetensors file, or a Hugging Face folder. The released InfiniteTalk weights need "
                    "wav2vec2-chinese-base (12 layers of 768).",
                ),
            ],
            outputs=[AudioEncoder.Output("encoder", display_name="audio encoder")],
        )

    @classmethod
    def fingerprint_inputs(cls, audio_encoder: str | None = None, **others) -> str | float:
        """Return the file's stamp, so that ComfyUI loads a file replaced on disk again."""
        return stamp_of_choice(audio_encoder_path, audio_encoder)

    @classmethod
    @checked(audio_encoder=text)
    def execute(cls, audio_encoder: str) -> io.NodeOutput:
        """Load the audio encoder."""
        return io.NodeOutput(load_audio_encoder(audio_encoder_path(audio_encoder), cls.shared))
