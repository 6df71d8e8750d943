"""Build the parts of the pack's workflows: files, nodes, and the groups that most workflows share.

tools/workflow_designs.py combines them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from workflow_layout import (
    ABOVE,
    BOTTOM,
    GAP,
    HEIGHTS,
    ROOM,
    TITLE,
    TOP,
    WIDTH,
    Columns,
    Group,
    Link,
    Node,
    below,
    filled,
    node,
    stack,
)

# For each file its folder in ComfyUI's models, its download address, its size in GB and what it is.
HF = "https://huggingface.co"
WAN = f"{HF}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
FILES = {
    "wan2.1_i2v_480p_14B_fp8_scaled.safetensors": (
        "diffusion_models",
        f"{WAN}/diffusion_models",
        16.4,
        "Wan 2.1 I2V 480p",
    ),
    "wan2.1_infiniteTalk_single_fp16.safetensors": ("model_patches", f"{WAN}/model_patches", 5.1, "InfiniteTalk"),
    "wan2.1_infiniteTalk_multi_fp16.safetensors": ("model_patches", f"{WAN}/model_patches", 5.1, "InfiniteTalk multi"),
    "wan_2.1_vae.safetensors": ("vae", f"{WAN}/vae", 0.25, "Wan 2.1 VAE"),
    "clip_vision_h.safetensors": ("clip_vision", f"{WAN}/clip_vision", 1.3, "CLIP vision"),
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": ("text_encoders", f"{WAN}/text_encoders", 6.7, "umt5 xxl"),
    "wav2vec2-chinese-base_fp16.safetensors": (
        "audio_encoders",
        f"{HF}/Kijai/wav2vec2_safetensors/resolve/main",
        0.19,
        "wav2vec 2.0",
    ),
    "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors": (
        "loras",
        f"{HF}/lightx2v/Wan2.1-I2V-14B-480P-StepDistill-CfgDistill-Lightx2v/resolve/main/loras",
        0.74,
        "lightx2v LoRA",
    ),
    "Wan21_Uni3C_controlnet_fp16.safetensors": (
        "controlnet",
        f"{HF}/Kijai/WanVideo_comfy/resolve/main",
        2.0,
        "Uni3C",
    ),
}
LORA_FILE = "Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors"
UNI3C_FILE = "Wan21_Uni3C_controlnet_fp16.safetensors"
SINGLE, MULTI = (f"wan2.1_infiniteTalk_{kind}_fp16.safetensors" for kind in ("single", "multi"))
BLUE, GREEN, PURPLE, RED = "#3f789e", "#3f7a4f", "#6b4f8a", "#8a4a4a"
POSITIVE_COLOR, NEGATIVE_COLOR = ("#232", "#353"), ("#322", "#533")
NEGATIVE = (
    "blurry, distorted face, deformed mouth, crooked teeth, flicker, frozen picture, overexposed, "
    "subtitles, watermark, extra fingers"
)

# Node ids that all workflows share: 1 to 9 models and text, 10 to 19 speech, 20 to 29 picture, from 30 the rest.
MODEL, LORA, PATCH, VAE, CLIP_VISION, CLIP, POSITIVE, NEGATIVE_TEXT, STEP_CACHE = range(1, 10)
ENCODER, SPEECH, VOICE, VOICE_2 = 10, 11, 12, 13
SOURCE, PICKER, MASK, DEPTH, PATH = 20, 21, 22, 23, 24
GUIDANCE, SAMPLER, SDEDIT, UNI3C_LOADER, CAMERA, PINNED, VIDEO_FORMAT, VIDEO_FRAMES, PREVIEW = range(30, 39)
NOTE = 40
QUALITY = LORA  # in the place of the LoRA loader and the guidance


class Speed(Enum):
    """How a workflow chooses its steps: LoRA and guidance as two nodes, one Quality node, or guidance without LoRA."""

    LORA = "LoRA"
    QUALITY = "quality"
    NONE = "none"


def models(columns: Columns, weights: str, speed: Speed) -> Group:
    """Return the loaders, with the guidance below them; `weights` is the file of InfiniteTalk weights."""
    faster = {
        Speed.LORA: (
            node(
                LORA,
                "LoraLoaderModelOnly",
                widgets={"lora_name": LORA_FILE},
                links={"model": (MODEL, 0)},
                title="Fast: 8 steps instead of 40 (LoRA)",
            ),
        ),
        Speed.QUALITY: (
            node(
                QUALITY,
                "InfiniteTalkQuality",
                widgets={"quality": "balanced", "lora": LORA_FILE},
                links={"model": (MODEL, 0)},
                label_of={"quality": "Quality"},
            ),
        ),
        Speed.NONE: (),
    }[speed]
    base = MODEL if speed is Speed.NONE else LORA
    preset = "half the predictions 480p (40 steps)" if speed is Speed.NONE else "distill LoRA (8 steps)"
    guidance = node(GUIDANCE, "InfiniteTalkGuidance", widgets={"preset": preset})
    nodes = (
        node(MODEL, "UNETLoader", widgets={"unet_name": "wan2.1_i2v_480p_14B_fp8_scaled.safetensors"}),
        *faster,
        node(PATCH, "InfiniteTalkModelLoader", widgets={"infinitetalk": weights}, links={"model": (base, 0)}),
        node(VAE, "VAELoader", widgets={"vae_name": "wan_2.1_vae.safetensors"}),
        node(CLIP_VISION, "CLIPVisionLoader", widgets={"clip_name": "clip_vision_h.safetensors"}),
        node(CLIP, "CLIPLoader", widgets={"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan"}),
        *(() if speed is Speed.QUALITY else (guidance,)),
    )
    return Group("Models and quality", BLUE, stack(columns.models_x, columns.models, *nodes))


def voice(number: int, file: str, title: str = "", label: str = "Voice") -> Node:
    """Return a Load Audio node."""
    return node(number, "LoadAudio", widgets={"audio": file}, title=title, label_of={"audio": label})


def encoder() -> Node:
    """Return the loader of wav2vec 2.0."""
    return node(
        ENCODER,
        "InfiniteTalkAudioEncoderLoader",
        widgets={"audio_encoder": "wav2vec2-chinese-base_fp16.safetensors"},
    )


def speech_encode() -> Node:
    """Return the node of one person's speech."""
    return node(SPEECH, "InfiniteTalkSpeechEncode", links={"encoder": (ENCODER, 0), "audio": (VOICE, 0)})


def one_voice(columns: Columns, loader: Node | None = None) -> Group:
    """Return the speech nodes of one person; loader: in the place of Load Audio."""
    first = loader or voice(VOICE, "voice.wav")
    nodes = [*stack(columns.x(0), columns.between, first)]
    if columns.count == 2:
        nodes += stack(columns.x(1), columns.between, encoder(), speech_encode())
    else:
        nodes += stack(columns.x(1), columns.between, encoder())
        nodes += stack(columns.x(2), columns.between, speech_encode())
    return Group("Speech", GREEN, tuple(nodes))


IMAGE_LINK: dict[str, Link] = {"image": (SOURCE, 0)}
VIDEO_LINK: dict[str, Link] = {"video": (SOURCE, 0)}


def source(kind: str, **widgets: Any) -> Node:
    """Return a loader of the picture or video."""
    label = {"image": "Picture", "file": "Video"}
    return node(SOURCE, kind, 1, widgets=widgets, label_of={k: label[k] for k in widgets if k in label})


def picker(links: dict[str, Link], **widgets: Any) -> Node:
    """Return the Reference Picker."""
    labels = {"size": "Size", "after_end": "After the video"}
    return node(PICKER, "InfiniteTalkReferencePicker", 1, widgets=widgets, links=links, label_of=labels)


def picture(columns: Columns, loader: Node, picks: Node, above: Sequence[Node], bottom: int) -> Group:
    """Return the nodes of the source and the Reference Picker, from below `above` to `bottom`."""
    top = below(*above)
    shown = loader if loader.type in HEIGHTS else filled(loader, bottom, top)  # a loader without a preview stays small
    left = stack(columns.x(0), columns.between, shown, top=top)
    right = stack(columns.x(1), columns.between, filled(picks, bottom, top), top=top)
    return Group("Picture", PURPLE, (*left, *right))


TEXT_HEIGHT = 116
TEXT_TOP = BOTTOM - TEXT_HEIGHT - TITLE  # of the title bars of texts at the bottom
ABOVE_TEXT = TEXT_TOP - ABOVE  # lower edge of what is in the group above


def texts(prompt: str, height: int = TEXT_HEIGHT) -> tuple[Node, Node]:
    """Return the two texts."""
    links = {"clip": (CLIP, 0)}
    wanted = node(
        POSITIVE,
        "CLIPTextEncode",
        height,
        widgets={"text": prompt},
        links=links,
        title="What the scene is",
        color=POSITIVE_COLOR,
        label_of={"text": "What the scene is"},
    )
    unwanted = node(
        NEGATIVE_TEXT,
        "CLIPTextEncode",
        height,
        widgets={"text": NEGATIVE},
        links=links,
        title="What it should not be",
        color=NEGATIVE_COLOR,
    )
    return wanted, unwanted


def text_row(columns: Columns, prompt: str) -> Group:
    """Return both texts side by side at the bottom of the first two columns."""
    rows = [stack(columns.x(i), columns.between, each, top=TEXT_TOP) for i, each in enumerate(texts(prompt))]
    return Group("Text", BLUE, (*rows[0], *rows[1]))


def text_column(columns: Columns, number: int, prompt: str, top: int) -> Group:
    """Return both texts below each other, from `top` to the bottom."""
    height = (BOTTOM - top - GAP) // 2 - TITLE
    return Group("Text", BLUE, stack(columns.x(number), columns.between, *texts(prompt, height), top=top))


def sampling(columns: Columns, speed: Speed = Speed.LORA, **more: Link) -> Group:
    """Return the sampler; `more` are other links of its inputs."""
    links: dict[str, Link] = {
        "model": (PATCH, 0),
        "vae": (VAE, 0),
        "speech": (SPEECH, 0),
        "reference": (PICKER, 0),
        "guidance": (QUALITY, 1) if speed is Speed.QUALITY else (GUIDANCE, 0),
        "clip_vision": (CLIP_VISION, 0),
        "positive": (POSITIVE, 0),
        "negative": (NEGATIVE_TEXT, 0),
        **more,
    }
    sampler = node(SAMPLER, "InfiniteTalkChunkSampler", BOTTOM - TOP - TITLE, links=links, label_of={"seed": "Seed"})
    x = columns.sampler_x
    return Group("Video", RED, stack(x, WIDTH - x, sampler), room=ROOM)


def camera(**guide: Link) -> tuple[Node, Node]:
    """Return Uni3C, which follows the source's camera or that of `guide`, and ends before the lips are formed."""
    return (
        node(UNI3C_LOADER, "InfiniteTalkUni3CLoader", widgets={"uni3c": UNI3C_FILE}),
        node(
            CAMERA,
            "InfiniteTalkUni3CCamera",
            widgets={"end": 0.3},
            links={"uni3c": (UNI3C_LOADER, 0), **guide},
        ),
    )
