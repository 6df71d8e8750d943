"""Node that lists and empties the cache of loaded models."""

import time

from comfy_api.latest import io, ui

from .host.model.shared_models import SharedModels
from .inputs import checked
from .shared import ModelNode
from .types import CATEGORY, search_aliases

AUTO_BUDGET = -1.0


class ModelCacheNode(ModelNode):
    """List the contents of the model cache as text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkModelCache",
            display_name="InfiniteTalk Model Cache",
            category=CATEGORY,
            **search_aliases("unload", "free memory", "VRAM"),
            description="Shows which InfiniteTalk, Uni3C and audio encoder weights are loaded: one copy for all "
            "nodes, workflows and prompts. What no workflow uses any more is kept up to a budget.",
            inputs=[
                io.Float.Input(
                    "budget_gb",
                    default=AUTO_BUDGET,
                    min=AUTO_BUDGET,
                    max=1024.0,
                    step=0.5,
                    tooltip="Memory in GB that weights which no workflow uses any more may take, until ComfyUI is "
                    "closed; the longest unused go first. -1 is a quarter of the memory, 0 keeps nothing.",
                ),
                io.Boolean.Input(
                    "empty",
                    default=False,
                    tooltip="Lets all unused weights go now, and those in use as soon as they are not.",
                ),
                io.AnyType.Input(
                    "after",
                    optional=True,
                    tooltip="Anything that is to be made first. Not connected: it looks whenever it comes to it.",
                ),
            ],
            outputs=[io.String.Output("contents", display_name="contents")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        """Return a new value each time, since other nodes change the cache: the node always runs again."""
        return time.monotonic()

    @classmethod
    @checked
    def execute(cls, budget_gb: float = AUTO_BUDGET, empty: bool = False, after=None) -> io.NodeOutput:
        """Set the budget, empty the cache if requested, and return its contents as text."""
        models = cls.shared or SharedModels()
        models.set_budget_gb(budget_gb)
        if empty:
            models.cache.empty()
        text = models.describe()
        return io.NodeOutput(text, ui=ui.PreviewText(text))
