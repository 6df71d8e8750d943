"""Node that adds InfiniteTalk weights to a Wan 2.1 I2V MODEL."""

from comfy_api.latest import io

from ..infinitetalk_core.model.kernels import AttentionBackend
from .host.model.audio_adapter import patch_model
from .host.model.model_files import infinitetalk_path, infinitetalk_weights
from .inputs import checked, text
from .shared import ModelNode, stamp_of_choice
from .types import CATEGORY, USERS_WORDS, advanced, search_aliases

ATTENTION = [backend.value for backend in AttentionBackend]


class ModelLoader(ModelNode):
    """Add audio cross-attention to a MODEL, with the InfiniteTalk weights of a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkModelLoader",
            display_name="InfiniteTalk Model Loader",
            category=CATEGORY,
            **search_aliases(*USERS_WORDS, "MultiTalk"),
            description="Adds InfiniteTalk to Wan 2.1 I2V. LoRAs, quantized weights and attention nodes of the MODEL "
            "keep working, before and after this node.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Wan 2.1 I2V 14B, 480p or 720p, from Load Diffusion Model or a GGUF loader. "
                    "Wan 2.2, T2V and VACE do not work with these weights.",
                ),
                io.Combo.Input(
                    "infinitetalk",
                    options=infinitetalk_weights(),
                    tooltip="InfiniteTalk weights from models/model_patches, models/diffusion_models or "
                    "models/multitalk: single for one speaker, multi for two. A file that holds Wan and InfiniteTalk "
                    "in one is chosen here and as the MODEL. MultiTalk weights work too.",
                ),
                advanced(
                    io.Float.Input(
                        "strength",
                        default=1.0,
                        min=0.0,
                        max=4.0,
                        step=0.05,
                        tooltip="How much the speech moves the picture: 1 as trained, 0 not at all. For livelier lips "
                        "raise the audio guidance instead.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "attention",
                        options=ATTENTION,
                        default=ATTENTION[0],
                        tooltip="What computes the attention. auto: as ComfyUI was started, and what attention nodes "
                        "ask for; a chunk that comes out black or broken is made again with PyTorch's own. sage, "
                        "flash: SageAttention, FlashAttention. sdpa: PyTorch's own. Those must be installed and fit "
                        "the GPU.",
                    )
                ),
            ],
            outputs=[io.Model.Output("patched", display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, infinitetalk: str | None = None, **others) -> str | float:
        """Return the file's stamp, so that ComfyUI loads a file replaced on disk again."""
        return stamp_of_choice(infinitetalk_path, infinitetalk)

    @classmethod
    @checked(infinitetalk=text)
    def execute(cls, model, infinitetalk: str, strength: float = 1.0, attention: str = ATTENTION[0]) -> io.NodeOutput:
        """Return a patched clone of the MODEL."""
        backend = AttentionBackend(attention)
        path = infinitetalk_path(infinitetalk)
        return io.NodeOutput(patch_model(model, path, strength, backend, cls.shared))
