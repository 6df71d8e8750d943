// Grays the numbers that a choice on the same node makes meaningless: width and height unless the size is custom,
// steps and scales unless the preset is custom, what another policy or another camera path reads, quality where nothing
// is lost. On the canvas and in Nodes 2.0, except in the first Nodes 2.0 (frontend 1.32), which has no way to be told and
// leaves everything open.
import { app } from "../../scripts/app.js";
import { follow, isLinked, widgetOf } from "./widgets.js";

const RANDOM = ["neighbor", "same chunk, random", "first or last of chunk", "distant", "adaptive"];

// By node: the widgets that matter only while another widget has one of these values.
const RULES = {
  InfiniteTalkReferencePicker: [
    { numbers: ["width", "height"], when: ["size", "custom"] },
    { numbers: ["radius_seconds"], when: ["policy", "neighbor", "adaptive"] },
    { numbers: ["control"], when: ["policy", "adaptive"] },
    { numbers: ["times"], when: ["policy", "by hand"] },
    { numbers: ["pick_seed"], when: ["policy", ...RANDOM] },
  ],
  InfiniteTalkCameraPath: [
    { numbers: ["turn", "tilt"], when: ["kind", "orbit", "free"] },
    { numbers: ["right", "down", "forward"], when: ["kind", "pan", "free"] },
    { numbers: ["distance"], when: ["kind", "dolly", "free"] },
    { numbers: ["zoom"], when: ["kind", "zoom", "free"] },
  ],
  InfiniteTalkGuidance: [
    { numbers: ["steps", "text_scale", "audio_scale", "shift"], when: ["preset", "custom"] },
    { numbers: ["guidance_start", "guidance_end"], when: ["preset", "custom"] },
    { numbers: ["apg_momentum", "apg_norm_threshold"], when: ["apg", true] },
  ],
  InfiniteTalkVideoFormat: [{ numbers: ["bit_depth", "crf"], when: ["codec", "H.264", "HEVC", "AV1"] }],
};

function refresh(node, rules) {
  let changed = false;
  for (const { numbers, when: [choice, ...values] } of rules) {
    const disabled = !isLinked(node, choice) && !values.includes(widgetOf(node, choice)?.value);
    for (const widget of numbers.map((name) => widgetOf(node, name))) {
      if (!widget || Boolean(widget.disabled) === disabled) continue;
      widget.disabled = disabled;
      changed = true;
    }
  }
  if (changed) node.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: "infinitetalk.relevantInputs",
  nodeCreated(node) {
    const rules = RULES[node.comfyClass];
    if (!rules) return;
    const update = () => refresh(node, rules);
    for (const choice of new Set(rules.map(({ when }) => when[0]))) {
      const widget = widgetOf(node, choice);
      if (widget) follow(widget, "callback", update);
    }
    follow(node, "onConfigure", update); // loaded, pasted, undone
    follow(node, "onConnectionsChange", update);
    update();
  },
  setup() {
    document.body.dataset.infinitetalk = "ready"; // the browser tests wait for it
  },
});
