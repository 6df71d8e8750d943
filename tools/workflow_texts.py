"""The notes of the pack's workflows in English and Chinese, and the Chinese names of their groups, nodes and fields."""

from __future__ import annotations

from workflow_parts import FILES, LORA_FILE

# By text in the graph: what it is called in Chinese.
CHINESE = {
    "Models and quality": "模型与质量",
    "Speech": "语音",
    "Picture": "画面",
    "Text": "文字",
    "Video": "视频",
    "Camera": "镜头",
    "Camera path": "镜头路径",
    "Hold on to the source": "贴近源视频",
    "What may change": "允许变化的区域",
    "Frames": "帧",
    "Special wishes": "特殊需要",
    "Fast: 8 steps instead of 40 (LoRA)": "加速：8 步代替 40 步（LoRA）",
    "Voice of person 1 (left)": "人物 1（左）的声音",
    "Voice of person 2 (right)": "人物 2（右）的声音",
    "Load Image (depth)": "加载图像（深度）",
    "What the scene is": "场景描述",
    "What it should not be": "不希望出现的内容",
    "Frames of the video": "视频的帧",
    "Read me": "说明",
    "Voice": "声音",
    "Quality": "质量",
    "Size": "尺寸",
    "Seed": "种子",
    "Who speaks when": "说话的先后",
    "After the video": "视频结束后",
}

PORTRAIT = """# A picture speaks
1. **Load Image**: a portrait. **Load Audio**: the voice, any length.
2. Press **Run**.

The video becomes as long as the voice, plays in the sampler and lies in `output/video`.
"""
PORTRAIT_ZH = """# 让图片说话
1. **加载图像**：一张人像。**加载音频**：声音，长短不限。
2. 点击 **运行**。

视频与声音一样长，在采样器里播放，保存在 `output/video`。
"""
DUBBING = """# A video says something else
1. **Load Video**: the video, any length and frame rate. **Load Audio**: the new voice.
2. Press **Run**.

The video becomes as long as the voice, plays in the sampler and lies in `output/video`.
The reference of every chunk is the source frame at its start, so background and camera follow the source. Where the
voice is longer than the video, `after_end` says what is shown.
"""
DUBBING_ZH = """# 给视频换一段话
1. **加载视频**：任意长度和帧率。**加载音频**：新的声音。
2. 点击 **运行**。

视频与声音一样长，在采样器里播放，保存在 `output/video`。
每一段的参考帧取自源视频的同一时刻，因此背景和镜头跟随源视频。声音比视频长时，由 `after_end` 决定显示什么。
"""
SPEAKERS = """# Two people speak
1. **Load Image**: a picture of two people. **Voice of person 1** and **2**: what they say.
2. **Speakers**: do they speak *together* or *one after the other*?
3. Press **Run**.

Person 1 is the left half of the picture and person 2 the right half. For other places connect a mask for each person
(a Load Image node's mask, painted with *Open in MaskEditor*) or fill in the boxes.
For a person who is silent leave the voice unconnected.
"""
SPEAKERS_ZH = """# 两个人说话
1. **加载图像**：两个人的图片。**人物 1** 和 **人物 2 的声音**：他们要说的话。
2. **说话人**：*together*（同时）还是 *one after the other*（先后）说话？
3. 点击 **运行**。

人物 1 是图片的左半边，人物 2 是右半边。位置不同时，给每个人连接一个遮罩（在加载图像节点上用 *打开遮罩编辑器* 绘制），
或者填写方框。不说话的人，不连接声音即可。
"""
UNI3C = """# A video says something else, and its camera stays
1. **Load Video**: a video whose camera moves. **Load Audio**: the new voice.
2. Press **Run**.

**Uni3C Camera** makes each chunk follow the camera of the source at its time.
* *The camera does not follow*: raise `end` to 0.6, then `strength` to 1.3.
* *The lips follow the old words, or the background bends*: lower `end` to 0.2, then `strength`.
* Another video's camera: connect it to `guidance_video`.
"""
UNI3C_ZH = """# 给视频换一段话，保持镜头运动
1. **加载视频**：镜头会动的视频。**加载音频**：新的声音。
2. 点击 **运行**。

**Uni3C 镜头** 让每一段跟随源视频同一时刻的镜头。
* *镜头没有跟上*：把 `end` 提高到 0.6，再把 `strength` 提高到 1.3。
* *嘴唇还在说原来的话，或背景变形*：把 `end` 降到 0.2，再降低 `strength`。
* 使用另一段视频的镜头：连接到 `guidance_video`。
"""
SDEDIT = """# A video says something else, and holds on to the source
1. **Load Video**: the video. **Load Audio**: the new voice.
2. Press **Run**.

**SDEdit Strength** starts each chunk from the noised source instead of noise. No model file is needed for it.
* *Camera or background do not follow*: lower the strength, 0.02 at a time.
* *The lips follow the old words*: raise it. 1 is off.
* *The colors shift on a long video*: leave `color_hold` of the sampler at 1, or raise the strength of later chunks in
`per_chunk`, such as 0.9, 0.92, 0.95.
"""
SDEDIT_ZH = """# 给视频换一段话，贴近源视频
1. **加载视频**：视频。**加载音频**：新的声音。
2. 点击 **运行**。

**SDEdit 强度** 让每一段从加了噪声的源视频开始，而不是从纯噪声开始，不需要额外的模型文件。
* *镜头或背景没有跟上*：降低强度，每次 0.02。
* *嘴唇还在说原来的话*：提高强度。1 表示关闭。
* *长视频里颜色偏移*：采样器的 `color_hold` 保持为 1，或在 `per_chunk` 里逐段提高，例如 0.9, 0.92, 0.95。
"""
FACE = """# Only the face changes
1. **Load Video**: the video. **Load Audio**: the new voice.
2. **Load Image (as Mask)**: white where the video may change, in the size of the video. Cover the head wherever it
moves, with some room around it.
3. Press **Run**. Outside the mask and its soft edge every pixel is the source's.

To paint a mask: save the first frame of the video as a picture, load it with **Load Image**, right-click, *Open in
MaskEditor*, paint, and connect its MASK to **Pinned Region**.
* *A border shows*: raise `feather`.
* *The head leaves the mask*: make the mask larger, or connect **SDEdit Strength** (0.9) as well.
"""
FACE_ZH = """# 只改变脸部
1. **加载视频**：视频。**加载音频**：新的声音。
2. **加载图像（作为遮罩）**：允许变化的地方为白色，尺寸与视频相同。盖住头部会到达的所有位置，并留一些余量。
3. 点击 **运行**。遮罩及其柔和边缘之外，每个像素都来自源视频。

绘制遮罩：把视频第一帧存成图片，用 **加载图像** 打开，右键 *打开遮罩编辑器* 绘制，再把它的 MASK 连到 **固定区域**。
* *看得到边界*：提高 `feather`。
* *头部移出遮罩*：扩大遮罩，或同时连接 **SDEdit 强度**（0.9）。
"""
PATH = """# A picture speaks, and the camera moves
1. **Load Image**: a portrait. **Load Image (depth)**: its depth, brighter is nearer. For your own picture
connect a depth node, such as Depth Anything.
2. **Load Audio**: the voice. **Camera Path**: what the camera does; its preview shows it.
3. Press **Run**.

* `kind` *orbit* reads `turn` and `tilt`, *dolly* `distance`, *zoom* `zoom`, *pan* `right`, `down` and `forward`.
* *The person leaves the frame*: a smaller `turn`, or a smaller `far`, which makes the scene flatter.
* *The camera does not follow*: raise `end` to 0.6.
"""
PATH_ZH = """# 让图片说话，并移动镜头
1. **加载图像**：一张人像。**加载图像（深度）**：它的深度，越亮越近。`portrait_depth.png` 属于示例图片；
自己的图片请接上任意深度节点，例如 Depth Anything。
2. **加载音频**：声音。**镜头路径**：镜头怎样运动，预览会显示出来。
3. 点击 **运行**。

* `kind` 为 *orbit* 时读取 `turn` 和 `tilt`，*dolly* 读取 `distance`，*zoom* 读取 `zoom`，
*pan* 读取 `right`、`down`、`forward`。
* *人物离开画面*：减小 `turn`，或减小 `far`，使场景更平。
* *镜头没有跟上*：把 **Uni3C 镜头** 的 `end` 提高到 0.6。
"""
PARTS = """# Files by path, and the nodes for special wishes
1. **Load Source**: a picture or video by its path in `input`, also for films of hours. **Load Voice**: a sound file.
2. Press **Run**.

* **Step Cache** leaves out the model where two steps ask nearly the same. It works from 20 steps on: this graph makes
all 40 steps without a LoRA, with half of the predictions.
* **Video Format**: the codec of the file; here 10 bits a color, for grading.
* **Video Frames**: a part of the finished video as pictures, for nodes that take IMAGE.
"""
PARTS_ZH = """# 按路径读取文件，以及满足特殊需要的节点
1. **加载源**：按 `input` 中的路径读取图片或视频，几小时的影片也可以。**加载声音**：声音文件。
2. 点击 **运行**。

* **步缓存** 在前后两步几乎相同时跳过模型。20 步以上才有效：这里不用 LoRA，做满 40 步，只用一半的预测。
* **视频格式**：文件的编码；这里每种颜色 10 位，便于调色。
* **视频帧**：把成品视频的一部分变成图片，供需要 IMAGE 的节点使用。
"""

FORM = """
The **App** button at the top left shows the form again.
"""
FORM_ZH = """
左上角的 **App** 按钮可以回到表单。
"""

MODEL_NOTE = """
## Model files: {total:.0f} GB
ComfyUI offers to download what is missing.

{files}

## Memory
At 480p a graphics card with 24 GB is fast. With 12 or 16 GB the rest of the weights waits in RAM (have 32 GB) and each
step takes longer. The video's length makes no difference.

## What to change first
{quality}
* **Livelier lips**: {lips}
* **Out of memory**: `size` *custom*, for example 640 x 368; or `chunk_frames` 49 in the sampler.

The i button of a selected node opens its help."""
MODEL_NOTE_ZH = """
## 模型文件：{total:.0f} GB
缺少的文件 ComfyUI 会提示下载。

{files}

## 内存
480p：显存 24 GB 时很快。12 或 16 GB 时，其余权重放在内存里（建议 32 GB），每一步会慢一些。与视频长短无关。

## 先试着改这些
{quality}
* **嘴唇更生动**：{lips}
* **显存不足**：`size` 选 *custom*，例如 640 x 368；或在采样器里把 `chunk_frames` 设为 49。

选中节点后点 i 按钮可以打开帮助。"""
QUALITY = (
    "* **Quality**: *fast* (4 steps), *balanced* (8) or *best* (40 steps without the LoRA, about 8 times as long)."
)
QUALITY_ZH = "* **质量**：*fast*（4 步）、*balanced*（8 步）或 *best*（40 步，不用 LoRA，时间约为 8 倍）。"
PRESET = """* **Best quality**: select the LoRA, press Ctrl+B (bypass), and set the preset to *quality 480p (40 steps)*.
It takes about 8 times as long. **Faster**: preset *distill LoRA (4 steps)*.
* One choice for both: the node **Quality**, in place of LoRA and Guidance."""
PRESET_ZH = """* **最佳质量**：选中 LoRA，按 Ctrl+B（绕过），预设改为 *quality 480p (40 steps)*，时间约为 8 倍。
**更快**：预设 *distill LoRA (4 steps)*。
* 一个选项同时管两者：用 **质量** 节点代替 LoRA 和引导。"""
UNCACHED = "* **Faster**: connect a LoRA and choose *distill LoRA (8 steps)*; the Step Cache then does nothing."
UNCACHED_ZH = "* **更快**：连接 LoRA，选择 *distill LoRA (8 steps)*；这时步缓存不起作用。"


def notes(text: str, chinese: str, files: list[str], *, form: bool = False) -> tuple[str, str]:
    """Return a workflow's note in English and Chinese. files: the names of its model files."""
    total = sum(FILES[name][2] for name in files)
    one_choice = form and LORA_FILE in files
    own, own_zh = (QUALITY, QUALITY_ZH) if one_choice else (PRESET, PRESET_ZH)
    if LORA_FILE not in files:
        own, own_zh = UNCACHED, UNCACHED_ZH
    lips = "use **Guidance** in place of Quality's second output, " if one_choice else ""
    lips_zh = "用 **引导** 代替质量节点的第二个输出，" if one_choice else ""
    english = MODEL_NOTE.format(
        total=total,
        files=_list(files),
        quality=own,
        lips=f"{lips}preset *custom*, steps 8, text 1, audio 3.",
    )
    translated = MODEL_NOTE_ZH.format(
        total=total,
        files=_list(files),
        quality=own_zh,
        lips=f"{lips_zh}预设 *custom*，steps 8，text 1，audio 3。",
    )
    return text + (FORM if form else "") + english, chinese + (FORM_ZH if form else "") + translated


def _list(files: list[str]) -> str:
    rows = ((name, *FILES[name]) for name in files)
    return "\n".join(f"* [{what}]({url}/{name}), {size:g} GB, `{folder}`" for name, folder, url, size, what in rows)
