// Shows the choices of the pack's nodes in Chinese where the frontend is Chinese. What is stored and sent stays the same.
import { app } from "../../scripts/app.js";

const CHOICES = {
  kind: { orbit: "环绕 orbit", pan: "平移 pan", dolly: "推拉 dolly", zoom: "变焦 zoom", free: "自由 free" },
  color_anchor: { "chunk's reference": "本段的参考帧", "first reference": "第一个参考帧" },
  after_redo: { continue: "继续重做", keep: "保留" },
  color_hold_by: { region: "按区域", picture: "按整幅画面" },
  preset: {
    "quality 480p (40 steps)": "质量 480p（40 步）",
    "quality 720p (40 steps)": "质量 720p（40 步）",
    "audio guidance 480p (40 steps)": "语音引导 480p（40 步）",
    "audio guidance 720p (40 steps)": "语音引导 720p（40 步）",
    "half the predictions 480p (40 steps)": "一半预测 480p（40 步）",
    "half the predictions 720p (40 steps)": "一半预测 720p（40 步）",
    "distill LoRA (4 steps)": "蒸馏 LoRA（4 步）",
    "distill LoRA (8 steps)": "蒸馏 LoRA（8 步）",
    custom: "自定义",
  },
  attention: { auto: "自动" },
  quality: { fast: "快 fast", balanced: "均衡 balanced", best: "最佳 best" },
  policy: {
    auto: "自动 auto",
    still: "始终第一帧 still",
    "chunk start": "本段开头 chunk start",
    neighbor: "邻近帧 neighbor",
    "same chunk, random": "本段内随机 same chunk",
    "first or last of chunk": "本段首或尾帧",
    distant: "远处的帧 distant",
    "first and last": "首帧和尾帧",
    "previous output": "上一段的输出",
    adaptive: "自适应 adaptive",
    "by hand": "手动 by hand",
  },
  size: { custom: "自定义" },
  after_end: {
    "hold the last frame": "停在最后一帧",
    "play backwards, then forwards": "倒放，再正放",
    "start again": "从头再来",
  },
  timing: { together: "同时", "one after the other": "先后" },
  calibration: { none: "无" },
  keep_in: { RAM: "内存", GPU: "显存" },
  codec: { lossless: "无损" },
  bit_depth: { "8 bit": "8 位", "10 bit": "10 位" },
};

app.registerExtension({
  name: "infinitetalk.chineseChoices",
  nodeCreated(node) {
    const locale = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
    if (!locale.startsWith("zh") || !node.comfyClass?.startsWith("InfiniteTalk")) return;
    for (const widget of node.widgets ?? []) {
      const names = CHOICES[widget.name];
      if (names && widget.options) widget.options.getOptionLabel = (value) => names[value] ?? String(value ?? "");
    }
  },
});
