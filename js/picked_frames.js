// The Reference Picker shows a picture. Nodes 2.0 takes a node with a VIDEO input for one that shows a video.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "infinitetalk.pickedFrames",
  nodeCreated(node) {
    if (node.comfyClass === "InfiniteTalkReferencePicker") node.previewMediaType = "image";
  },
});
