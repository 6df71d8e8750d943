"""Define the pack's workflows: their nodes, links, texts and places on the canvas. Data only.

tools/make_workflows.py writes them to files.
"""

from __future__ import annotations

from workflow_parts import (
    CAMERA,
    DEPTH,
    DUB_LINKS,
    ENCODER,
    ENCODER_FILE,
    IMAGE_LINK,
    MASK,
    MULTI,
    PATH,
    PICKER,
    PINNED,
    PURPLE,
    SDEDIT,
    SINGLE,
    SOURCE,
    SPEECH,
    UNI3C,
    VIDEO_LINK,
    VOICE,
    VOICE_2,
    Design,
    Group,
    Node,
    camera,
    groups,
    models,
    note,
    one_voice,
    picture,
    sampling,
    voice,
)

PORTRAIT_NOTE = """# A picture speaks
1. **Load Image**: a portrait. **Load Audio**: the voice, any length.
2. Press **Run**. The video becomes as long as the voice, plays in the sampler and lies in `output/video`.
"""

DUBBING_NOTE = """# A video says something else
1. **Load Video**: the video, any length and frame rate. **Load Audio**: the new voice.
2. Press **Run**. The video becomes as long as the voice, plays in the sampler and lies in `output/video`.

The reference of every chunk is the source frame at its start, so background and camera follow the source. Where the
voice is longer than the video, `after_end` says what is shown: the last frame, the video backwards, or again from its
start.
"""

SPEAKERS_NOTE = """# Two people speak
1. **Load Image**: a picture of two people. **Voice of person 1** and **2**: what they say.
2. **InfiniteTalk Speakers**: do they speak *together* or *one after the other*?
3. Press **Run**. The video plays in the sampler and lies in `output/video`.

Person 1 is the left half of the picture and person 2 the right half. For other places connect a mask for each person
(a Load Image node's mask, painted with *Open in MaskEditor*) or fill in the boxes.
For a person who is silent leave the voice unconnected.
"""

UNI3C_NOTE = """# A video says something else, and its camera stays
1. **Load Video**: a video whose camera moves. **Load Audio**: the new voice.
2. Press **Run**. The video becomes as long as the voice, plays in the sampler and lies in `output/video`.

**Uni3C Camera** makes each chunk follow the camera of the source at its time.
* *The camera does not follow*: raise `end` to 0.6, then `strength` to 1.3.
* *The lips follow the old words, or the background bends*: lower `end` to 0.2, then `strength`.
* Another video's camera: connect it to `guidance_video`.

Reference Picker shows the reference frames of the chunks. The sampler's `report`, and the .json file beside the
video, say for each chunk how smooth the join is and how far the colors are from the source's.
"""

SDEDIT_NOTE = """# A video says something else, and holds on to the source
1. **Load Video**: the video. **Load Audio**: the new voice.
2. Press **Run**. The video becomes as long as the voice, plays in the sampler and lies in `output/video`.

**SDEdit Strength** starts each chunk from the noised source instead of noise. No model file is needed for it.
* *Camera or background do not follow*: lower the strength, 0.02 at a time.
* *The lips follow the old words*: raise it. 1 is off.
* *The colors shift on a long video*: leave `color_hold` of the sampler at 1, or raise the strength of later chunks in
`per_chunk`, such as 0.9, 0.92, 0.95.

For a camera that moves much, the workflow *dub_keep_camera_uni3c* follows better.
"""

FACE_NOTE = """# Only the face changes
1. **Load Video**: the video. **Load Audio**: the new voice.
2. **Load Image (as Mask)**: white where the video may change, in the size of the video. Cover the head wherever it
moves, with some room around it.
3. Press **Run**. Outside the mask and its soft edge every pixel is the source's.

To paint a mask: save the first frame of the video as a picture, load it with **Load Image**, right-click, *Open in
MaskEditor*, paint, and connect its MASK to **Pinned Region**. For a head that moves far, any segmentation node gives a
mask for each frame of a 25 fps video.

* *A border shows*: raise `feather`.
* *The head leaves the mask*: make the mask larger, or connect **SDEdit Strength** (0.9) as well, so that the head stays
where the source has it.
"""

PATH_NOTE = """# A picture speaks, and the camera moves
1. **Load Image**: a portrait. **Load Image (depth)**: its depth, brighter is nearer. `portrait_depth.png` belongs to
the sample; for your own picture connect any depth node, such as Depth Anything, to the portrait.
2. **Load Audio**: the voice. **Camera Path**: what the camera does; its preview shows it.
3. Press **Run**. The video plays in the sampler and lies in `output/video`.

* `kind` *orbit* reads `turn` and `tilt`, *dolly* `distance`, *zoom* `zoom`, *pan* `right`, `down` and `forward`.
* The camera circles the depth that half of the picture is nearer than. *The person leaves the frame*: a smaller `turn`,
or a smaller `far`, which makes the scene flatter.
* Gray in the preview is what the picture does not show; the model invents it.
* *The camera does not follow*: raise `end` of **Uni3C Camera** to 0.6.
"""

SOURCE_VIDEO, BACK_AND_FORTH = {"file": "portrait.mp4"}, "play backwards, then forwards"
PORTRAIT_PROMPT = (
    "A person speaks to the camera with natural lip and jaw movements, lively eyes and slight movements of the head. "
    "Soft light, sharp details."
)
DUB_PROMPT = (
    "A person speaks to the camera with natural lip and jaw movements; gestures, background and camera stay as in the "
    "video. Sharp details."
)

DESIGNS = (
    Design(
        "talking_portrait",
        (
            *models(SINGLE),
            *one_voice(),
            *picture("LoadImage", {"image": "portrait.png"}, IMAGE_LINK, 354, (414, 540)),
            *sampling(PORTRAIT_PROMPT),
        ),
        groups(260, 680),
        note(PORTRAIT_NOTE, MULTI, UNI3C),
    ),
    Design(
        "video_dubbing",
        (
            *models(SINGLE),
            *one_voice(),
            *picture("LoadVideo", SOURCE_VIDEO, VIDEO_LINK, 354, (414, 540), after_end=BACK_AND_FORTH),
            *sampling(DUB_PROMPT),
        ),
        groups(260, 680),
        note(DUBBING_NOTE, MULTI, UNI3C),
    ),
    Design(
        "two_speakers",
        (
            *models(MULTI),
            voice(VOICE, "voice.wav", 80, "Voice of person 1 (left)"),
            voice(VOICE_2, "voice_2.wav", 266, "Voice of person 2 (right)"),
            Node(ENCODER, "InfiniteTalkAudioEncoderLoader", 880, 80, 340, 58, ENCODER_FILE),
            Node(
                SPEECH,
                "InfiniteTalkSpeakers",
                880,
                188,
                340,
                186,
                {"timing": "one after the other"},
                {"encoder": (ENCODER, 0), "audio_1": (VOICE, 0), "audio_2": (VOICE_2, 0)},
            ),
            *picture("LoadImage", {"image": "two_people.png"}, IMAGE_LINK, 530, (314, 414)),
            *sampling(
                "Two people talk with each other, natural lip and jaw movements, lively eyes; who listens keeps the "
                "mouth closed. Soft light, sharp details."
            ),
        ),
        groups(436, 504),
        note(SPEAKERS_NOTE, SINGLE, UNI3C),
    ),
    Design(
        "dub_keep_camera_uni3c",
        (
            *models(SINGLE),
            *one_voice(),
            *picture("LoadVideo", SOURCE_VIDEO, DUB_LINKS, 354, (414, 540), after_end=BACK_AND_FORTH),
            *camera(1280, 826, 360),
            *sampling(DUB_PROMPT, camera=(CAMERA, 0)),
        ),
        groups(260, 680, Group("Camera", 1260, 746, 400, 358, PURPLE)),
        note(UNI3C_NOTE, MULTI),
    ),
    Design(
        "dub_keep_camera_sdedit",
        (
            *models(SINGLE),
            *one_voice(),
            *picture("LoadVideo", SOURCE_VIDEO, DUB_LINKS, 354, (414, 540), after_end=BACK_AND_FORTH),
            Node(SDEDIT, "InfiniteTalkSDEditStrength", 1280, 826, 360, 82),
            *sampling(DUB_PROMPT, sdedit=(SDEDIT, 0)),
        ),
        groups(260, 680, Group("Hold on to the source", 1260, 746, 400, 182, PURPLE)),
        note(SDEDIT_NOTE, MULTI, UNI3C),
    ),
    Design(
        "dub_face_only",
        (
            *models(SINGLE),
            *one_voice(),
            *picture("LoadVideo", SOURCE_VIDEO, DUB_LINKS, 354, (414, 540), after_end=BACK_AND_FORTH),
            Node(MASK, "LoadImageMask", 500, 1060, 340, 380, {"image": "face_mask.png", "channel": "red"}),
            Node(PINNED, "InfiniteTalkPinnedRegion", 880, 1060, 340, 58, {}, {"mask": (MASK, 0)}),
            *sampling(DUB_PROMPT, pinned=(PINNED, 0)),
        ),
        groups(260, 680, Group("What may change", 480, 980, 760, 480, PURPLE)),
        note(FACE_NOTE, MULTI, UNI3C),
    ),
    Design(
        "camera_path_portrait",
        (
            *models(SINGLE),
            *one_voice(),
            *picture("LoadImage", {"image": "portrait.png"}, IMAGE_LINK, 354, (414, 540)),
            Node(DEPTH, "LoadImage", 500, 1060, 340, 340, {"image": "portrait_depth.png"}, title="Load Image (depth)"),
            Node(
                PATH,
                "InfiniteTalkCameraPath",
                880,
                1060,
                340,
                650,
                {"kind": "orbit", "turn": 10.0, "seconds": 4.0, "far": 3.0},
                {**IMAGE_LINK, "depth": (DEPTH, 0)},
            ),
            *camera(500, 1450, 340, path=(PATH, 0)),
            *sampling(PORTRAIT_PROMPT, camera=(CAMERA, 0)),
        ),
        groups(260, 680, Group("Camera", 480, 980, 760, 750, PURPLE)),
        note(PATH_NOTE, MULTI),
    ),
)

# For programs only (client/dub_folder.py): a source and a voice by path, otherwise as video_dubbing.
HEADLESS = Design(
    "dub_by_path",
    (
        *models(SINGLE),
        Node(VOICE, "InfiniteTalkLoadVoice", 0, 0, 0, 0, {"path": "voice.wav"}),
        *one_voice()[1:],
        Node(SOURCE, "InfiniteTalkLoadSource", 0, 0, 0, 0, {"path": "portrait.mp4"}),
        Node(
            PICKER,
            "InfiniteTalkReferencePicker",
            0,
            0,
            0,
            0,
            {"after_end": BACK_AND_FORTH},
            {"image": (SOURCE, 0), "video": (SOURCE, 1)},
        ),
        *sampling(DUB_PROMPT),
    ),
    groups=(),
    note="",
)
