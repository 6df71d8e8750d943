// Shows on the Model Cache node what it found, as the frontend shows no node's text by itself. A type that the frontend
// has itself, such as text, would be an input in Nodes 2.0.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "infinitetalk.modelCache",
  nodeCreated(node) {
    if (node.comfyClass !== "InfiniteTalkModelCache") return;
    const shown = document.createElement("pre");
    shown.style.cssText = "margin:0;padding:4px;overflow:auto;white-space:pre-wrap;font-size:11px";
    shown.dataset.infinitetalk = "model-cache";
    const options = { serialize: false, getMinHeight: () => 110 };
    const widget = node.addDOMWidget("shown", "infinitetalk_text", shown, options);
    widget.serialize = false;
    const before = node.onExecuted;
    node.onExecuted = function (...output) {
      before?.apply(this, output);
      shown.textContent = (output[0]?.text ?? []).join("\n");
    };
  },
});
