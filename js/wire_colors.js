// Gives each connection type of the pack its own color, so that wires can be told apart where they cross. A color
// palette clears them, so they are set again whenever one is chosen or a graph is opened.
import { app } from "../../scripts/app.js";

const COLORS = {
  INFINITETALK_AUDIO_ENCODER: "#8fd16f",
  INFINITETALK_SPEECH: "#3fc48b",
  INFINITETALK_REFERENCE: "#e58fd8",
  INFINITETALK_GUIDANCE: "#f2c14e",
  INFINITETALK_SDEDIT: "#c98a5b",
  INFINITETALK_PINNED: "#ef6f6c",
  INFINITETALK_VIDEO_FORMAT: "#9aa7b8",
  INFINITETALK_UNI3C: "#5aa9e6",
  INFINITETALK_CAMERA_PATH: "#7d8cf0",
  INFINITETALK_CAMERA: "#4fd0e0",
};

function paint() {
  Object.assign(app.canvas?.default_connection_color_byType ?? {}, COLORS);
  Object.assign(window.LGraphCanvas?.link_type_colors ?? {}, COLORS);
  for (const [type, color] of Object.entries(COLORS)) {
    document.documentElement.style.setProperty(`--color-datatype-${type}`, color); // Nodes 2.0
  }
  app.canvas?.setDirty?.(true, true);
}

app.registerExtension({
  name: "infinitetalk.wireColors",
  setup() {
    paint();
    app.ui?.settings?.addEventListener?.("Comfy.ColorPalette.change", () => setTimeout(paint, 100));
  },
  afterConfigureGraph: paint,
});
