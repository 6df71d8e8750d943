// Writes on our nodes what the server cannot say because ComfyUI does not run them, since nothing before them has
// changed: that the sampler's video is made already, and what the picker said when it ran.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const PICKER = "InfiniteTalkReferencePicker";
const SAMPLER = "InfiniteTalkChunkSampler";
const ALREADY_MADE = "Already made; change the seed or switch start_over on";

// The kind of the node with this id, inside subgraphs behind theirs ("5:31"); undefined if another workflow is open.
function kindOf(id) {
  let graph = app.rootGraph ?? app.graph;
  let node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node?.comfyClass;
}

// As if the server had written on the node: the frontend shows it with its own widget.
function write(id, text) {
  api.dispatchCustomEvent("progress_text", { nodeId: String(id), text });
}

app.registerExtension({
  name: "infinitetalk.nodeWords",
  setup() {
    api.addEventListener("execution_cached", ({ detail }) => {
      for (const id of detail?.nodes ?? []) if (kindOf(id) === SAMPLER) write(id, ALREADY_MADE);
    });
    api.addEventListener("executed", ({ detail }) => {
      const [text] = detail?.output?.text ?? [];
      if (text && kindOf(detail.node) === PICKER) write(detail.node, text);
    });
  },
});
