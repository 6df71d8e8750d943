"""Node for the step cache (TeaCache): steps whose input hardly changes reuse the cached residual of the blocks."""

from comfy_api.latest import io

from ..infinitetalk_core.sampling.step_cache import CALIBRATIONS, StepCaching
from .host.model.cached_blocks import attach_step_cache
from .inputs import checked
from .types import CATEGORY, advanced, search_aliases

DEVICES = ["RAM", "GPU"]


class StepCacheNode(io.ComfyNode):
    """Enable the step cache on a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkStepCache",
            display_name="InfiniteTalk Step Cache",
            category=CATEGORY,
            **search_aliases("TeaCache", "MagCache", "EasyCache", "faster"),
            description="Faster at some loss of quality (TeaCache): where two steps ask nearly the same of the model, "
            "the earlier one's answer is used again. For 20 steps and more; with a distill LoRA it does nothing.",
            inputs=[
                io.Model.Input("model", tooltip="From the InfiniteTalk Model Loader."),
                io.Float.Input(
                    "threshold",
                    default=0.2,
                    min=0.01,
                    max=10.0,
                    step=0.01,
                    tooltip="How much change is left out before the model is run again: more is faster and further "
                    "from the video without a cache. 0.2: as in the reference; 0.5: for drafts. The log says how many "
                    "steps were left out.",
                ),
                io.Combo.Input(
                    "calibration",
                    options=list(CALIBRATIONS),
                    default=next(iter(CALIBRATIONS)),
                    tooltip="Which model the threshold is meant for: 480p or 720p as in the file's name. none: the "
                    "plain change, for a model of another kind; take smaller thresholds then.",
                ),
                advanced(
                    io.Int.Input(
                        "first_steps",
                        default=5,
                        min=1,
                        max=100,
                        tooltip="Steps at the beginning of each chunk that are always made: pose and picture are laid "
                        "out there.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "keep_in",
                        options=DEVICES,
                        default=DEVICES[0],
                        tooltip="Where answers are kept, 0.3 GB at 480p and 0.8 GB at 720p for each of up to 3 "
                        "predictions a step. GPU saves copying, if there is room.",
                    )
                ),
            ],
            outputs=[io.Model.Output("patched", display_name="model")],
        )

    @classmethod
    @checked
    def execute(
        cls, model, threshold: float, calibration: str, first_steps: int = 5, keep_in: str = DEVICES[0]
    ) -> io.NodeOutput:
        """Return a clone of the MODEL with the cache settings attached."""
        polynomial = CALIBRATIONS[calibration]
        on_gpu = keep_in == "GPU"
        return io.NodeOutput(attach_step_cache(model, StepCaching(threshold, polynomial, first_steps, on_gpu)))
