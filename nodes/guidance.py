"""Node for the sampling settings: steps, guidance scales, schedule shift and APG."""

from comfy_api.latest import io

from ..infinitetalk_core.sampling.settings import PRESETS, SamplingSettings, with_apg
from .inputs import checked
from .types import CATEGORY, GuidanceType, advanced, search_aliases, standing_for

PRESET_INPUTS = ("steps", "text_scale", "audio_scale", "shift", "guidance_start", "guidance_end")
PRESET_NUMBERS = {
    preset: {name: getattr(settings, name) for name in PRESET_INPUTS} for preset, settings in PRESETS.items()
}


class GuidanceSettings(io.ComfyNode):
    """Choose a preset of sampling settings, or custom values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        own = "Only for preset custom."
        return io.Schema(
            node_id="InfiniteTalkGuidance",
            display_name="InfiniteTalk Guidance",
            category=CATEGORY,
            **search_aliases("cfg", "audio cfg", "APG", "steps", "shift"),
            description="Steps, guidance and noise schedule that belong together.",
            inputs=[
                standing_for(
                    io.Combo.Input(
                        "preset",
                        options=[*PRESETS, "custom"],
                        default=next(iter(PRESETS)),
                        tooltip="quality: 40 steps with text and speech guidance, for the model as released. audio "
                        "guidance: 80 predictions a chunk in place of 120, the prompt pulls less. half the "
                        "predictions: the same, guided in the middle of the steps only, 61 predictions. distill LoRA: "
                        "for a step-distilled LoRA (lightx2v, FusionX) on the MODEL; 4 steps without guidance or 8 "
                        "with speech guidance, 4 or 16 predictions. FlashTalk: for SoulX-FlashTalk-14B; 4 steps "
                        "without guidance, each from new noise, and chunks of 33 frames. custom: the numbers below.",
                    ),
                    PRESET_NUMBERS,
                ),
                io.Int.Input("steps", default=40, min=1, max=200, tooltip=f"Denoising steps a chunk. {own}"),
                io.Float.Input(
                    "text_scale",
                    default=5.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip=f"How strongly the prompt pulls; 1 is off and saves a third of the time. {own}",
                ),
                io.Float.Input(
                    "audio_scale",
                    default=4.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How strongly the speech pulls: 3 to 5 for good lips, 1 is off and saves time. " + own,
                ),
                io.Float.Input(
                    "shift",
                    default=7.0,
                    min=0.1,
                    max=100.0,
                    step=0.1,
                    tooltip=f"Where the steps are spent: 7 for 480p, 11 for 720p. {own}",
                ),
                advanced(
                    io.Boolean.Input(
                        "apg",
                        default=False,
                        tooltip="Adaptive projected guidance: strong guidance without over-saturated colors.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "apg_momentum",
                        default=-0.75,
                        min=-1.0,
                        max=1.0,
                        step=0.05,
                        tooltip="How much of the last step's pull is carried on. Only with apg.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "apg_norm_threshold",
                        default=55.0,
                        min=0.0,
                        max=1000.0,
                        step=1.0,
                        tooltip="The pull is cut to this length; 0 is no limit. Only with apg.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "guidance_start",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        tooltip=f"Share of the steps at which guidance begins; before, a step is one prediction. {own}",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "guidance_end",
                        default=1.0,
                        min=0.0,
                        max=1.0,
                        step=0.05,
                        tooltip=f"Share of the steps at which guidance ends; after, a step is one prediction. {own}",
                    )
                ),
            ],
            outputs=[GuidanceType.Output("guidance", display_name="guidance")],
        )

    @classmethod
    @checked
    def execute(  # noqa: PLR0913 (one parameter an input)
        cls,
        preset: str,
        steps: int,
        text_scale: float,
        audio_scale: float,
        shift: float,
        apg: bool = False,
        apg_momentum: float = -0.75,
        apg_norm_threshold: float = 55.0,
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
    ) -> io.NodeOutput:
        """Return the `SamplingSettings` of the preset or of the inputs, with the APG settings applied."""
        settings = PRESETS.get(preset) or SamplingSettings(
            steps, text_scale, audio_scale, shift, guidance_start=guidance_start, guidance_end=guidance_end
        )
        return io.NodeOutput(with_apg(settings, apg, apg_momentum, apg_norm_threshold))
