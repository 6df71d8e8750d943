"""Node that loads the Uni3C ControlNet for camera motion."""

from comfy_api.latest import io

from .host.model.model_files import uni3c_files, uni3c_path
from .host.model.uni3c import load_uni3c_patcher
from .inputs import checked, text
from .shared import ModelNode, stamp_of_choice
from .types import CATEGORY, Uni3CType, search_aliases


class Uni3CLoader(ModelNode):
    """Load a Uni3C ControlNet from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkUni3CLoader",
            display_name="InfiniteTalk Uni3C Loader",
            category=CATEGORY,
            **search_aliases("camera control", "controlnet"),
            description="Loads Uni3C, the ControlNet that makes Wan follow a camera.",
            inputs=[
                io.Combo.Input(
                    "uni3c",
                    options=uni3c_files(),
                    tooltip="Wan21_Uni3C_controlnet_fp16.safetensors, from models/controlnet or models/model_patches.",
                ),
            ],
            outputs=[Uni3CType.Output("controlnet", display_name="uni3c")],
        )

    @classmethod
    def fingerprint_inputs(cls, uni3c: str | None = None, **others) -> str | float:
        """Return the file's stamp, so that ComfyUI loads a file replaced on disk again."""
        return stamp_of_choice(uni3c_path, uni3c)

    @classmethod
    @checked(uni3c=text)
    def execute(cls, uni3c: str) -> io.NodeOutput:
        """Load the ControlNet."""
        return io.NodeOutput(load_uni3c_patcher(uni3c_path(uni3c), cls.shared))
