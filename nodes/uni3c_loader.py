"""Loads the Uni3C ControlNet for camera motion."""

from comfy_api.latest import io

from .host.files import file_stamp, uni3c_files, uni3c_path
from .host.uni3c import load_uni3c_patcher
from .shared import ModelNode
from .types import CATEGORY, Uni3CType


class Uni3CLoader(ModelNode):
    """A file → Uni3C."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The form."""
        return io.Schema(
            node_id="InfiniteTalkUni3CLoader",
            display_name="InfiniteTalk Uni3C Loader",
            category=CATEGORY,
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
    def fingerprint_inputs(cls, uni3c: str) -> str:
        """A file that was replaced on disk is loaded again."""
        return file_stamp(uni3c_path(uni3c))

    @classmethod
    def execute(cls, uni3c: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(load_uni3c_patcher(uni3c_path(uni3c), cls.shared))
