"""Define the pack's workflows: their nodes, links and places on the canvas. Data only.

tools/make_workflows.py writes them to files; the notes are in workflow_texts.py.
"""

from __future__ import annotations

from dataclasses import replace

import workflow_texts as notes
from workflow_layout import (
    ABOVE,
    BOTTOM,
    GAP,
    THREE,
    TITLE,
    TWO,
    Design,
    Form,
    Group,
    Node,
    below,
    filled,
    node,
    stack,
)
from workflow_parts import (
    ABOVE_TEXT,
    BLUE,
    CAMERA,
    DEPTH,
    ENCODER,
    FILES,
    GREEN,
    IMAGE_LINK,
    MASK,
    MULTI,
    PATCH,
    PATH,
    PICKER,
    PINNED,
    POSITIVE,
    PREVIEW,
    PURPLE,
    QUALITY,
    RED,
    SAMPLER,
    SDEDIT,
    SINGLE,
    SOURCE,
    SPEECH,
    STEP_CACHE,
    VIDEO_FORMAT,
    VIDEO_FRAMES,
    VIDEO_LINK,
    VOICE,
    VOICE_2,
    Speed,
    camera,
    encoder,
    models,
    one_voice,
    picker,
    picture,
    sampling,
    source,
    text_column,
    text_row,
    voice,
)

BACK_AND_FORTH = "play backwards, then forwards"
PORTRAIT_PROMPT = (
    "A person speaks to the camera with natural lip and jaw movements, lively eyes and slight movements of the head. "
    "Soft light, sharp details."
)
DUB_PROMPT = (
    "A person speaks to the camera with natural lip and jaw movements; gestures, background and camera stay as in the "
    "video. Sharp details."
)
TWO_PROMPT = (
    "Two people talk with each other, natural lip and jaw movements, lively eyes; who listens keeps the mouth closed. "
    "Soft light, sharp details."
)
PORTRAIT = source("LoadImage", image="portrait.png")
FILM = source("LoadVideo", file="portrait.mp4")
FAVORITES = ((VOICE, "audio"), (PICKER, "size"), (SAMPLER, "seed"))


def design(
    name: str,
    title: str,
    texts: tuple[str, str],
    groups: tuple[Group, ...],
    favorites: tuple[tuple[int, str], ...],
    form: Form | None = None,
) -> Design:
    """Return a workflow whose note lists the model files that its nodes name."""
    named = [value for group in groups for each in group.nodes for value in each.widgets.values()]
    note, note_zh = notes.notes(*texts, [name for name in FILES if name in named], form=form is not None)
    return Design(name, title, groups, note, note_zh, favorites, form)


def talking(speed: Speed) -> tuple[Group, ...]:
    """Return the groups of a picture that speaks."""
    speech = one_voice(TWO)
    return (
        models(TWO, SINGLE, speed),
        speech,
        picture(TWO, PORTRAIT, picker(IMAGE_LINK), speech.nodes, ABOVE_TEXT),
        text_row(TWO, PORTRAIT_PROMPT),
        sampling(TWO, speed),
    )


def dubbing(speed: Speed) -> tuple[Group, ...]:
    """Return the groups of a video that gets another voice."""
    speech = one_voice(TWO)
    return (
        models(TWO, SINGLE, speed),
        speech,
        picture(TWO, FILM, picker(VIDEO_LINK, after_end=BACK_AND_FORTH), speech.nodes, ABOVE_TEXT),
        text_row(TWO, DUB_PROMPT),
        sampling(TWO, speed),
    )


def two_people(speed: Speed) -> tuple[Group, ...]:
    """Return the groups of two people who speak."""
    speakers = node(
        SPEECH,
        "InfiniteTalkSpeakers",
        widgets={"timing": "one after the other"},
        links={"encoder": (ENCODER, 0), "audio_1": (VOICE, 0), "audio_2": (VOICE_2, 0)},
        label_of={"timing": "Who speaks when"},
    )
    heard = (
        voice(VOICE, "voice.wav", "Voice of person 1 (left)", "Voice of person 1 (left)"),
        voice(VOICE_2, "voice_2.wav", "Voice of person 2 (right)", "Voice of person 2 (right)"),
    )
    # Nodes 2.0 makes Speakers 18 units higher than its size in the file; the group's height is that of the voices.
    half = (speakers.height + TITLE + 20 - GAP) // 2 - TITLE
    voices = stack(THREE.x(0), THREE.between, *(replace(each, height=half) for each in heard))
    others = (*stack(THREE.x(1), THREE.between, speakers), *stack(THREE.x(2), THREE.between, encoder()))
    speech = Group("Speech", GREEN, (*voices, *others))
    people = source("LoadImage", image="two_people.png")
    return (
        models(THREE, MULTI, speed),
        speech,
        picture(THREE, people, picker(IMAGE_LINK), speech.nodes, BOTTOM),
        text_column(THREE, 2, TWO_PROMPT, below(*speech.nodes)),
        sampling(THREE, speed),
    )


def holding(title: str, *nodes: Node, **link: tuple[int, int]) -> tuple[Group, ...]:
    """Return the groups of a dubbed video with `nodes` in the third column; link: the sampler's input for them."""
    speech = one_voice(THREE)
    top = below(*speech.nodes)
    extra = Group(title, PURPLE, stack(THREE.x(2), THREE.between, *nodes, top=top))
    return (
        models(THREE, SINGLE, Speed.LORA),
        speech,
        picture(THREE, FILM, picker(VIDEO_LINK, after_end=BACK_AND_FORTH), speech.nodes, BOTTOM),
        extra,
        text_column(THREE, 2, DUB_PROMPT, below(*extra.nodes)),
        sampling(THREE, **link),
    )


def camera_path() -> tuple[Group, ...]:
    """Return the groups of a picture that speaks while the camera moves."""
    speech = one_voice(THREE)
    top = below(*speech.nodes)
    path = node(
        PATH,
        "InfiniteTalkCameraPath",
        widgets={"kind": "orbit", "turn": 10.0, "seconds": 4.0, "far": 3.0},
        links={**IMAGE_LINK, "depth": (DEPTH, 0)},
    )
    placed = Group("Camera path", PURPLE, stack(THREE.x(2), THREE.between, path, top=top))
    loader, follow = camera(path=(PATH, 0))
    shown = BOTTOM - 380
    frames = picture(THREE, PORTRAIT, picker(IMAGE_LINK), speech.nodes, shown - ABOVE)
    depth = node(DEPTH, "LoadImage", 1, widgets={"image": "portrait_depth.png"}, title="Load Image (depth)")
    left = stack(THREE.x(0), THREE.between, filled(depth, BOTTOM, shown), top=shown)
    right = stack(THREE.x(1), THREE.between, loader, follow, top=shown)
    return (
        models(THREE, SINGLE, Speed.LORA),
        speech,
        frames,
        placed,
        Group("Camera", PURPLE, (*left, *right)),
        text_column(THREE, 2, PORTRAIT_PROMPT, below(*placed.nodes)),
        sampling(THREE, camera=(CAMERA, 0)),
    )


def by_path() -> tuple[Group, ...]:
    """Return the groups of a dubbed video whose source and voice are paths, with the nodes for special wishes."""
    speech = one_voice(THREE, node(VOICE, "InfiniteTalkLoadVoice", widgets={"path": "voice.wav"}))
    top = below(*speech.nodes)
    loader = node(SOURCE, "InfiniteTalkLoadSource", widgets={"path": "portrait.mp4"})
    picks = picker({"image": (SOURCE, 0), "video": (SOURCE, 1)}, after_end=BACK_AND_FORTH)
    frames = node(VIDEO_FRAMES, "InfiniteTalkVideoFrames", widgets={"seconds": 1.0}, links={"video": (SAMPLER, 0)})
    preview = node(PREVIEW, "PreviewImage", links={"images": (VIDEO_FRAMES, 0)}, title="Frames of the video")
    shown = BOTTOM - preview.height - TITLE
    wishes = (
        node(STEP_CACHE, "InfiniteTalkStepCache", links={"model": (PATCH, 0)}),
        node(VIDEO_FORMAT, "InfiniteTalkVideoFormat", widgets={"bit_depth": "10 bit"}),
    )
    extra = Group("Special wishes", BLUE, stack(THREE.x(2), THREE.between, *wishes, top=top))
    parts = [
        stack(THREE.x(0), THREE.between, frames, top=shown),
        stack(THREE.x(1), THREE.between, preview, top=shown),
    ]
    return (
        models(THREE, SINGLE, Speed.NONE),
        speech,
        picture(THREE, loader, picks, speech.nodes, shown - ABOVE),
        extra,
        Group("Frames", RED, (*parts[0], *parts[1])),
        text_column(THREE, 2, DUB_PROMPT, below(*extra.nodes)),
        sampling(THREE, model=(STEP_CACHE, 0), video_format=(VIDEO_FORMAT, 0)),
    )


def form(*inputs: tuple[int, str]) -> Form:
    """Return a form with these inputs, the quality, the size, the scene and the seed, and the sampler's video."""
    rest = ((QUALITY, "quality"), (PICKER, "size"), (POSITIVE, "text"), (SAMPLER, "seed"))
    heights = {"text": 110}
    return Form(tuple((i, name, heights.get(name)) for i, name in (*inputs, *rest)), (SAMPLER,))


TALKING_APP = design(
    "talking_picture_app",
    "Talking picture.app",
    (notes.PORTRAIT, notes.PORTRAIT_ZH),
    talking(Speed.QUALITY),
    ((SOURCE, "image"), (VOICE, "audio"), (QUALITY, "quality"), (PICKER, "size")),
    form((SOURCE, "image"), (VOICE, "audio")),
)
APPS = (
    TALKING_APP,
    design(
        "dub_a_video_app",
        "Dub a video.app",
        (notes.DUBBING, notes.DUBBING_ZH),
        dubbing(Speed.QUALITY),
        ((SOURCE, "file"), (VOICE, "audio"), (QUALITY, "quality"), (PICKER, "size")),
        form((SOURCE, "file"), (VOICE, "audio"), (PICKER, "after_end")),
    ),
    design(
        "two_people_app",
        "Two people.app",
        (notes.SPEAKERS, notes.SPEAKERS_ZH),
        two_people(Speed.QUALITY),
        ((SOURCE, "image"), (VOICE, "audio"), (VOICE_2, "audio"), (QUALITY, "quality"), (PICKER, "size")),
        form((SOURCE, "image"), (VOICE, "audio"), (VOICE_2, "audio"), (SPEECH, "timing")),
    ),
)
GRAPHS = (
    design(
        "talking_portrait",
        "Graph 1 - Talking portrait, lip sync avatar",
        (notes.PORTRAIT, notes.PORTRAIT_ZH),
        talking(Speed.LORA),
        ((SOURCE, "image"), *FAVORITES),
    ),
    design(
        "video_dubbing",
        "Graph 2 - Dub a video, lip sync",
        (notes.DUBBING, notes.DUBBING_ZH),
        dubbing(Speed.LORA),
        ((SOURCE, "file"), *FAVORITES),
    ),
    design(
        "two_speakers",
        "Graph 3 - Two people talking",
        (notes.SPEAKERS, notes.SPEAKERS_ZH),
        two_people(Speed.LORA),
        ((SOURCE, "image"), (VOICE, "audio"), (VOICE_2, "audio"), (SPEECH, "timing"), (SAMPLER, "seed")),
    ),
    design(
        "dub_keep_camera_uni3c",
        "Graph 4 - Dub, camera kept by Uni3C",
        (notes.UNI3C, notes.UNI3C_ZH),
        holding("Camera", *camera(), camera=(CAMERA, 0)),
        ((SOURCE, "file"), *FAVORITES, (CAMERA, "strength"), (CAMERA, "end")),
    ),
    design(
        "dub_keep_camera_sdedit",
        "Graph 5 - Dub, held to the source by SDEdit",
        (notes.SDEDIT, notes.SDEDIT_ZH),
        holding("Hold on to the source", node(SDEDIT, "InfiniteTalkSDEditStrength"), sdedit=(SDEDIT, 0)),
        ((SOURCE, "file"), *FAVORITES, (SDEDIT, "strength")),
    ),
    design(
        "dub_face_only",
        "Graph 6 - Dub, only the face changes",
        (notes.FACE, notes.FACE_ZH),
        holding(
            "What may change",
            node(MASK, "LoadImageMask", widgets={"image": "face_mask.png", "channel": "red"}),
            node(PINNED, "InfiniteTalkPinnedRegion", links={"mask": (MASK, 0)}),
            pinned=(PINNED, 0),
        ),
        ((SOURCE, "file"), *FAVORITES, (MASK, "image"), (PINNED, "feather")),
    ),
    design(
        "camera_path_portrait",
        "Graph 7 - Talking portrait, camera path",
        (notes.PATH, notes.PATH_ZH),
        camera_path(),
        ((SOURCE, "image"), *FAVORITES, (PATH, "kind"), (PATH, "turn")),
    ),
)
# With the nodes that the others do not use; it has no API file.
PARTS = design(
    "parts_by_path",
    "Graph 8 - Files by path, step cache, wav2vec",
    (notes.PARTS, notes.PARTS_ZH),
    by_path(),
    ((SOURCE, "path"), (VOICE, "path"), (PICKER, "size"), (SAMPLER, "seed")),
)

# For programs only (client/dub_folder.py): a source and a voice by path, otherwise as video_dubbing.
HEADLESS = Design(
    "dub_by_path",
    "",
    (
        models(TWO, SINGLE, Speed.LORA),
        one_voice(TWO, node(VOICE, "InfiniteTalkLoadVoice", widgets={"path": "voice.wav"})),
        Group(
            "",
            PURPLE,
            (
                node(SOURCE, "InfiniteTalkLoadSource", widgets={"path": "portrait.mp4"}),
                picker({"image": (SOURCE, 0), "video": (SOURCE, 1)}, after_end=BACK_AND_FORTH),
            ),
        ),
        text_row(TWO, DUB_PROMPT),
        sampling(TWO, Speed.LORA),
    ),
    note="",
    note_zh="",
)
