// Shows the finished video on the sampler: as long as a node has a preview of its steps, the frontend shows that
// and never the node's output.
import { app } from "../../scripts/app.js";

// The frontend's key for a node's previews: its id, inside a subgraph behind the subgraph's id.
function previewKey(node) {
  return node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : String(node.id);
}

app.registerExtension({
  name: "infinitetalk.finishedVideo",
  nodeCreated(node) {
    if (node.comfyClass !== "InfiniteTalkChunkSampler") return;
    const before = node.onExecuted;
    node.onExecuted = function (...output) {
      before?.apply(this, output);
      delete app.nodePreviewImages?.[previewKey(this)];
      this.setDirtyCanvas?.(true, true);
    };
  },
});
