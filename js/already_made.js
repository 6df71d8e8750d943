// Says on the sampler that its video is made already where ComfyUI does not even run the node, since nothing before it
// has changed. The server says so itself where it runs (for instance after a restart).
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const TEXT_WIDGET = "$$node-text-preview"; // the frontend's own, for what a running node says
const ALREADY_MADE = "Already made; change the seed or switch start_over on";

// The node with this id, inside subgraphs behind theirs ("5:31"); undefined if it is in another workflow.
function nodeAt(graph, id) {
  let node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node;
}

app.registerExtension({
  name: "infinitetalk.alreadyMade",
  setup() {
    api.addEventListener("execution_cached", ({ detail }) => {
      for (const id of detail?.nodes ?? []) {
        const node = nodeAt(app.rootGraph ?? app.graph, id);
        if (node?.comfyClass !== "InfiniteTalkChunkSampler") continue;
        const shown = node.widgets?.find(({ name }) => name === TEXT_WIDGET);
        if (shown) shown.value = ALREADY_MADE;
        node.setDirtyCanvas?.(true, true);
      }
    });
  },
});
