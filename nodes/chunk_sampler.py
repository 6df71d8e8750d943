"""Node that generates the video chunk by chunk and writes each chunk to the file."""

from typing import ClassVar

from comfy_api.latest import io

from ..infinitetalk_core.chunks.job import ColorHold, HoldBy, Job, Output, Sampling
from ..infinitetalk_core.chunks.lip_tries import MOST_RETRIES
from ..infinitetalk_core.chunks.redo import AfterRedo, Redo
from ..infinitetalk_core.sampling.settings import preset_for
from ..infinitetalk_core.video.format import VideoFormat
from .host.media.video import check_name
from .host.sampling.finished_videos import FinishedVideos
from .host.sampling.run import components_of, run_job
from .host.sampling.watching import RunWatch
from .inputs import checked
from .shared import ModelNode
from .types import (
    CATEGORY,
    USERS_WORDS,
    CameraType,
    GuidanceType,
    PinnedType,
    ReferenceType,
    SDEditType,
    SpeechType,
    VideoFormatType,
    advanced,
    search_aliases,
)

COLOR_ANCHORS = ["chunk's reference", "first reference"]
COLOR_HOLD_BY = [by.value for by in HoldBy]
AFTER_REDO = [after.value for after in AfterRedo]


class ChunkSampler(ModelNode):
    """Generate the VIDEO from the model, the speech, the reference and the optional settings.

    videos, watch: set by the extension, as `shared` is.
    """

    videos: ClassVar[FinishedVideos | None] = None
    watch: ClassVar[RunWatch | None] = None

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Define the node's inputs and outputs."""
        return io.Schema(
            node_id="InfiniteTalkChunkSampler",
            display_name="InfiniteTalk Chunk Sampler",
            category=CATEGORY,
            **search_aliases(
                *USERS_WORDS,
                "dubbing",
                "talking portrait",
                "MultiTalk",
                "motion frame",
                "context overlap",
                "audio to video",
            ),
            description="Makes the video chunk by chunk and writes each to the file before the next one starts, so "
            "memory does not grow with length. After an interrupt or a crash the same job goes on where it stopped.",
            inputs=[
                io.Model.Input("model", tooltip="From the InfiniteTalk Model Loader (LoRAs may come after it)."),
                io.Vae.Input("vae", tooltip="The Wan 2.1 VAE (wan_2.1_vae.safetensors)."),
                SpeechType.Input("speech", tooltip="From Speech Encode or Speakers."),
                ReferenceType.Input("reference", tooltip="From the InfiniteTalk Reference Picker."),
                GuidanceType.Input(
                    "guidance",
                    optional=True,
                    tooltip="From InfiniteTalk Guidance. Not connected: quality, 40 steps, for the size of the video.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="clip_vision_h.safetensors. Recommended: the model was trained with it.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="What the scene is, from CLIP Text Encode with umt5_xxl. Not connected: no text.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What the video should not be. Has an effect only with text guidance above 1.",
                ),
                SDEditType.Input(
                    "sdedit",
                    optional=True,
                    tooltip="From SDEdit Strength: starts from the noised source, so that its camera shows through.",
                ),
                CameraType.Input(
                    "camera",
                    optional=True,
                    tooltip="From Uni3C Camera: the video follows a camera.",
                ),
                PinnedType.Input(
                    "pinned",
                    optional=True,
                    tooltip="From Pinned Region: outside its mask the source stays, pixel by pixel.",
                ),
                io.Sampler.Input("sampler", optional=True, tooltip="Any sampler. Not connected: euler."),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Any schedule; replaces the steps and the shift of the guidance.",
                ),
                VideoFormatType.Input(
                    "video_format",
                    optional=True,
                    tooltip="From InfiniteTalk Video Format: codec, 10 bits, lossless. Not connected: H.264 with the "
                    "crf below.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Chunk k uses seed + k.",
                ),
                advanced(
                    io.Int.Input(
                        "chunk_frames",
                        default=Sampling.chunk_frames,
                        min=5,
                        max=401,
                        step=4,
                        tooltip="Frames in one chunk, 4n+1. The model was trained on 81; fewer need less memory. With "
                        "the FlashTalk preset 81 stands for the 33 of its model.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "context_frames",
                        default=Sampling.context_frames,
                        min=1,
                        max=397,
                        step=4,
                        tooltip="Frames that a chunk continues from, 4n+1: 9 carries the motion over, 1 only the "
                        "picture. With the FlashTalk preset 9 stands for the 5 of its model.",
                    )
                ),
                io.Float.Input(
                    "color_hold",
                    default=ColorHold.strength,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Holds the colors, taken over a second, to the reference so that they do not drift; 0 is "
                    "off. Lower it when the light changes within a chunk.",
                ),
                advanced(
                    io.Combo.Input(
                        "color_anchor",
                        options=COLOR_ANCHORS,
                        default=COLOR_ANCHORS[0],
                        tooltip="What colors are held to. The chunk's own reference follows a video's light; the "
                        "first reference never changes.",
                    )
                ),
                io.String.Input(
                    "filename_prefix",
                    default=Output.filename_prefix,
                    tooltip="Where in ComfyUI's output folder the file goes.",
                ),
                advanced(
                    io.Int.Input(
                        "crf",
                        default=VideoFormat.crf,
                        min=0,
                        max=51,
                        tooltip="H.264 quality: 18 looks like the original, 23 is half the size. Not read where a "
                        "Video Format is connected.",
                    )
                ),
                io.Boolean.Input(
                    "start_over",
                    optional=True,
                    default=False,
                    tooltip="Makes everything anew. Off: the same job goes on where it stopped, after an interrupt, a "
                    "crash or a restart.",
                ),
                advanced(
                    io.Boolean.Input(
                        "keep_intermediates",
                        default=False,
                        tooltip="Leaves the chunks of the finished video in output/infinitetalk_runs, so that some can "
                        "be made again. About 50 MB a chunk at 832 x 480.",
                    )
                ),
                advanced(
                    io.String.Input(
                        "redo_chunks",
                        default="",
                        tooltip="Chunks to make again: 4=77 is chunk 4 with seed 77; several between commas. The help "
                        "page says how to give them another reference. Quick if intermediates were kept.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "after_redo",
                        options=AFTER_REDO,
                        default=AFTER_REDO[0],
                        tooltip="What becomes of the chunks after such a one. continue: made again from its last "
                        "frames. keep: they stay, and the join may show.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "seam_fade",
                        default=Sampling.seam_fade,
                        min=0,
                        max=64,
                        tooltip="Frames over which a chunk leaves the look of the last frame before it, which the VAE "
                        "changes a little: no jump at the join. 0 is off, as in the original.",
                        optional=True,
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "color_hold_by",
                        options=COLOR_HOLD_BY,
                        default=ColorHold.by.value,
                        tooltip="What color_hold does. region: turns each part of the picture that has drifted back to "
                        "its color. picture: gives the whole picture the reference's mean and spread.",
                        optional=True,
                    )
                ),
                advanced(
                    io.Int.Input(
                        "retry_lips",
                        default=Sampling.retry_lips,
                        min=0,
                        max=MOST_RETRIES,
                        tooltip="How often a chunk is made again with another seed while a real face's lips follow the "
                        "voice too little (below 0.25); the best is kept. 0 is off. Needs dlib, see the help page.",
                        optional=True,
                    )
                ),
                io.Boolean.Input(
                    "first_chunk_only",
                    optional=True,
                    default=False,
                    tooltip="Makes the first chunk as a short video and stops, to try settings and seed at little "
                    "cost. Off again: the same job goes on from that chunk.",
                ),
            ],
            outputs=[
                io.Video.Output("video", display_name="video"),
                io.String.Output("report", display_name="report"),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id, io.Hidden.dynprompt],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        """Return the changed files of loaded models and the number of deleted videos, so that ComfyUI runs the node
        again: its cache still holds the loader's output for the old file, and the video that is gone.
        """
        if cls.shared is None:
            return ""
        cls.shared.loaded.begin()  # ComfyUI calls this before it runs any node
        deleted = cls.videos.deleted() if cls.videos else 0
        return "\n".join([*cls.shared.loaded.changed(), *([f"{deleted} videos deleted"] if deleted else [])])

    @classmethod
    @checked
    def execute(  # noqa: PLR0913 (one parameter an input)
        cls,
        model,
        vae,
        speech,
        reference,
        clip_vision=None,
        positive=None,
        negative=None,
        sampler=None,
        guidance=None,
        video_format=None,
        crf: int = VideoFormat.crf,
        color_hold: float = ColorHold.strength,
        color_anchor: str = COLOR_ANCHORS[0],
        color_hold_by: str = ColorHold.by.value,
        filename_prefix: str = Output.filename_prefix,
        start_over: bool = False,
        keep_intermediates: bool = False,
        redo_chunks: str = "",
        after_redo: str = AFTER_REDO[0],
        first_chunk_only: bool = False,
        **sampling,
    ) -> io.NodeOutput:
        """Build the `Job` and run it. sampling: the inputs that are fields of `Sampling`, under the same names."""
        check_name(filename_prefix)
        to_first = color_anchor == COLOR_ANCHORS[1]
        job = Job(
            speech=speech,
            reference=reference,
            sampling=Sampling(
                settings=guidance or preset_for(reference.height, reference.width),
                color=ColorHold(color_hold, to_first, by=HoldBy(color_hold_by)),
                **sampling,
            ),
            components=components_of(
                cls.hidden,
                cls.shared,
                model,
                vae,
                clip_vision=clip_vision,
                positive=positive,
                negative=negative,
                sampler=sampler,
            ),
            output=Output(
                video_format or VideoFormat(crf=crf), filename_prefix, start_over, keep_intermediates, first_chunk_only
            ),
            redo=Redo(redo_chunks, AfterRedo(after_redo)),
        )
        return run_job(job, cls.hidden, cls.videos, cls.watch)
