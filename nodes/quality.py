"""Node that makes the quality one choice: the LoRA on the MODEL, and the guidance that belongs to it."""

import math

from comfy_api.latest import io

from ..infinitetalk_core.sampling.settings import PRESETS
from .host.model.loras import lora_names, lora_path, with_lora
from .host.model.model_files import file_stamp
from .inputs import checked, text
from .types import CATEGORY, GuidanceType, search_aliases

# By choice the preset, and None where the sampler takes the one for the size of the video, without the LoRA.
QUALITIES = {"fast": "distill LoRA (4 steps)", "balanced": "distill LoRA (8 steps)", "best": None}


class Quality(io.ComfyNode):
    """Choose between fast, balanced and best."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkQuality",
            display_name="InfiniteTalk Quality",
            category=CATEGORY,
            **search_aliases("fast", "preset", "lightx2v", "distill LoRA", "steps", "lip sync"),
            description="Fast, balanced or best, in one choice: puts the LoRA on the model or leaves it off, and gives "
            "the sampler the steps and guidance that belong to it.",
            inputs=[
                io.Model.Input("model", tooltip="Wan 2.1 I2V 14B without a step-distill LoRA on it."),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default="balanced",
                    tooltip="fast: 4 steps with the LoRA. balanced: 8 steps with the LoRA, and the speech pulls more, "
                    "4 times as long. best: 40 steps without the LoRA, guided by text and speech, for the size of the "
                    "video, 30 times as long.",
                ),
                io.Combo.Input(
                    "lora",
                    options=lora_names(),
                    tooltip="A LoRA in models/loras that is distilled to few steps (lightx2v, FusionX). Not read with "
                    "best.",
                ),
            ],
            outputs=[
                io.Model.Output("chosen", display_name="model"),
                GuidanceType.Output("guidance", display_name="guidance"),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool:
        """Accept a LoRA that is not there: best needs none, and otherwise the node says so."""
        return True

    @classmethod
    def fingerprint_inputs(cls, quality: str | None = None, lora: str | None = None, **others) -> str | float:
        """Return the LoRA's stamp, so that ComfyUI loads a file replaced on disk again."""
        if quality is None or lora is None:
            return math.nan  # it comes over a link
        return file_stamp(lora_path(lora)) if QUALITIES.get(quality) and lora in lora_names() else ""

    @classmethod
    @checked(lora=text)
    def execute(cls, model, quality: str, lora: str) -> io.NodeOutput:
        """Return the MODEL, and the settings or None for those of 40 steps."""
        preset = QUALITIES[quality]
        if preset is None:
            return io.NodeOutput(model, None)
        return io.NodeOutput(with_lora(model, lora_path(lora)), PRESETS[preset])
