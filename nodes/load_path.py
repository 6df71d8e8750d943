"""Nodes that load a source or a voice by path: for jobs sent over the API, and for files that do not fit in memory."""

import math

from comfy_api.latest import io

from .host.media.input_files import load_source, load_voice, path_problem, path_stamp
from .inputs import checked
from .types import CATEGORY, search_aliases


class _PathNode(io.ComfyNode):
    """Base class of nodes whose `path` input names a file in ComfyUI's folders."""

    @classmethod
    def validate_inputs(cls, path: str | None = None) -> str | bool:
        """Check the path when the job is queued, so that a wrong one does not fail hours later."""
        return path_problem(path)

    @classmethod
    def fingerprint_inputs(cls, path: str | None = None, **others) -> str | float:
        """Return the file's stamp, so that ComfyUI loads a file replaced on disk again."""
        return math.nan if path is None else path_stamp(path)  # None: it comes over a link


class LoadSource(_PathNode):
    """Load the file at a path as IMAGE or VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkLoadSource",
            display_name="InfiniteTalk Load Source",
            category=CATEGORY,
            **search_aliases("load video path", "load image path", "source"),
            description="A picture or a video by its path in ComfyUI's input folder. Connect both outputs to the "
            "Reference Picker; the one that the file is not stays empty. A video is read frame by frame, when a "
            "chunk needs it.",
            inputs=[
                io.String.Input(
                    "path",
                    default="",
                    tooltip="A picture or video in ComfyUI's input folder, such as clips/talk.mp4. With [output] or "
                    "[temp] behind it, in those folders.",
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image"),
                io.Video.Output("video", display_name="video"),
            ],
        )

    @classmethod
    @checked
    def execute(cls, path: str) -> io.NodeOutput:
        """Return (IMAGE, None) for a picture file, (None, VIDEO) for a video file."""
        return io.NodeOutput(*load_source(path))


class LoadVoice(_PathNode):
    """Load the file at a path as AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkLoadVoice",
            display_name="InfiniteTalk Load Voice",
            category=CATEGORY,
            **search_aliases("load audio path", "voice", "speech", "dub"),
            description="The sound of a sound or video file by its path in ComfyUI's input folder. Hours of it are "
            "kept in ComfyUI's temp folder and not in memory.",
            inputs=[
                io.String.Input(
                    "path",
                    default="",
                    tooltip="A sound or video file in ComfyUI's input folder, such as voices/chapter1.flac. With "
                    "[output] or [temp] behind it, in those folders.",
                ),
            ],
            outputs=[io.Audio.Output("audio", display_name="audio")],
        )

    @classmethod
    @checked
    def execute(cls, path: str) -> io.NodeOutput:
        """Decode the file's sound track."""
        return io.NodeOutput(load_voice(path))
