"""A source and a voice by path: for jobs that come over the API, and for files too long to be held in memory."""

from comfy_api.latest import io

from .host.inputs import load_source, load_voice, path_problem, path_stamp
from .types import CATEGORY


class _PathNode(io.ComfyNode):
    """A node whose `path` names a file in ComfyUI's folders."""

    @classmethod
    def validate_inputs(cls, path: str | None = None) -> str | bool:
        """Said when the job is queued, not hours later."""
        return path_problem(path)

    @classmethod
    def fingerprint_inputs(cls, path: str) -> str:
        """A file that was replaced on disk is loaded again."""
        return path_stamp(path)


class LoadSource(_PathNode):
    """A path → IMAGE or VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The form."""
        return io.Schema(
            node_id="InfiniteTalkLoadSource",
            display_name="InfiniteTalk Load Source",
            category=CATEGORY,
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
    def execute(cls, path: str) -> io.NodeOutput:
        """Open it."""
        return io.NodeOutput(*load_source(path))


class LoadVoice(_PathNode):
    """A path → AUDIO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The form."""
        return io.Schema(
            node_id="InfiniteTalkLoadVoice",
            display_name="InfiniteTalk Load Voice",
            category=CATEGORY,
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
    def execute(cls, path: str) -> io.NodeOutput:
        """Decode it."""
        return io.NodeOutput(load_voice(path))
