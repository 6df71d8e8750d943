"""Node that renders a camera path around a picture, as guidance for Uni3C."""

from comfy_api.latest import io, ui

from ..infinitetalk_core.camera.depth import depth_from_picture
from ..infinitetalk_core.camera.path import PRESETS, Move
from .host.media.camera_guides import path_guide, preview_frames
from .host.media.foreign_pictures import as_depth
from .inputs import checked
from .types import CATEGORY, CameraPathType, advanced, search_aliases

# The inputs that each kind of path uses.
CUSTOM_MOVES = {
    "orbit": ("turn", "tilt"),
    "pan": ("right", "down", "forward"),
    "dolly": ("distance",),
    "zoom": ("zoom",),
    "free": ("turn", "tilt", "right", "down", "forward", "distance", "zoom"),
}
NUMBERS = (
    ("turn", 0.0, -360.0, 360.0, 1.0, "Degrees around the subject: negative to the right, positive to the left."),
    ("tilt", 0.0, -90.0, 30.0, 1.0, "Degrees up (negative) or down (positive) around the subject."),
    ("right", 0.0, -0.5, 0.5, 0.01, "Sideways without turning, in distances to the subject; negative is left."),
    ("down", 0.0, -0.5, 0.5, 0.01, "Down without turning, in distances to the subject; negative is up."),
    ("forward", 0.0, -0.5, 0.5, 0.01, "Forward without turning, in distances to the subject; negative is back."),
    ("distance", 1.0, 0.25, 2.5, 0.01, "Distance to the subject at the end: below 1 nearer, above 1 farther."),
    ("zoom", 1.0, 0.25, 2.5, 0.01, "Focal length at the end: above 1 zooms in, below 1 out."),
)
# Input names and the fields of `Move`, which are named as in Uni3C's code.
FIELDS = {
    "turn": "d_phi",
    "tilt": "d_theta",
    "right": "x_offset",
    "down": "y_offset",
    "forward": "z_offset",
    "distance": "d_r",
    "zoom": "focal_length",
}


class CameraPath(io.ComfyNode):
    """Render a camera path from a picture and its depth."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkCameraPath",
            display_name="InfiniteTalk Camera Path",
            category=CATEGORY,
            **search_aliases("camera motion", "orbit", "dolly", "zoom"),
            description="Moves a camera around a picture, with its depth, and shows what it sees. Connect it to "
            "Uni3C Camera.",
            inputs=[
                io.Image.Input("image", tooltip="The picture that speaks; the same as in the Reference Picker."),
                io.Image.Input("depth", tooltip="Its depth from any depth node, such as Depth Anything."),
                io.Combo.Input(
                    "kind",
                    options=[*CUSTOM_MOVES, *(name for name in PRESETS if name != "orbit")],
                    default="orbit",
                    tooltip="orbit reads turn and tilt; pan right, down and forward; dolly distance; zoom zoom; free "
                    "all of them. free1 to free5, swing1 and swing2 are Uni3C's ready-made paths and read none.",
                ),
                io.Float.Input(
                    "seconds",
                    default=3.0,
                    min=0.04,
                    max=3600.0,
                    step=0.04,
                    tooltip="How long the camera takes; then it stays where it is.",
                ),
                *(
                    io.Float.Input(
                        name,
                        default=20.0 if name == "turn" else default,
                        min=low,
                        max=high,
                        step=step,
                        tooltip=tooltip,
                    )
                    for name, default, low, high, step, tooltip in NUMBERS
                ),
                advanced(
                    io.Boolean.Input(
                        "inverse_depth",
                        default=True,
                        tooltip="On: brighter is nearer, as most depth nodes give it. Off: brighter is farther.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "near", default=1.0, min=0.01, max=100.0, step=0.01, tooltip="Depth of what is nearest."
                    )
                ),
                advanced(
                    io.Float.Input(
                        "far",
                        default=5.0,
                        min=0.01,
                        max=1000.0,
                        step=0.01,
                        tooltip="Depth of what is farthest: the larger against near, the deeper the scene.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "field_of_view",
                        default=55.0,
                        min=5.0,
                        max=150.0,
                        step=1.0,
                        tooltip="Degrees that the picture's camera saw across the longer side.",
                    )
                ),
            ],
            outputs=[
                CameraPathType.Output("path", display_name="path"),
                io.Image.Output("preview", display_name="preview"),
            ],
        )

    @classmethod
    @checked(depth=as_depth)
    def execute(  # noqa: PLR0913 (one parameter an input)
        cls,
        image,
        depth,
        kind: str,
        seconds: float,
        turn: float,
        tilt: float,
        right: float,
        down: float,
        forward: float,
        distance: float,
        zoom: float,
        inverse_depth: bool = True,
        near: float = 1.0,
        far: float = 5.0,
        field_of_view: float = 55.0,
    ) -> io.NodeOutput:
        """Render the path; return it with a preview of some of its frames."""
        values = {
            "turn": turn,
            "tilt": tilt,
            "right": right,
            "down": down,
            "forward": forward,
            "distance": distance,
            "zoom": zoom,
        }
        path = (
            Move(**{FIELDS[name]: values[name] for name in CUSTOM_MOVES[kind]})
            if kind in CUSTOM_MOVES
            else PRESETS[kind]
        )
        guide = path_guide(image, depth_from_picture(depth[:1], near, far, inverse_depth), path, seconds, field_of_view)
        preview = preview_frames(guide)
        return io.NodeOutput(guide, preview, ui=ui.PreviewImage(preview, cls=cls))
