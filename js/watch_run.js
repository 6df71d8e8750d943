// The sampler's own player and strip of chunks, in place of the frontend's pictures: the video while it is made, then
// the finished one. On the canvas and in Nodes 2.0.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { HEIGHT } from "./watch/panel.js";
import { nodeAt, nodesOfKind } from "./watch/places.js";
import { textsFor } from "./watch/texts.js";
import { Watcher } from "./watch/watcher.js";
import { isLinked } from "./widgets.js";

const SAMPLER = "InfiniteTalkChunkSampler";
const PROGRESS_TEXT = "$$node-text-preview"; // the frontend's widget for it, which comes with the first text
const PROGRESS_TEXT_HEIGHT = 62;
const watchers = new WeakMap(); // by node

const root = () => app.rootGraph ?? app.graph;

const server = {
  client: () => api.clientId,
  run: async (query) => (await api.fetchApi(`/infinitetalk/run?${new URLSearchParams(query)}`)).json(),
  async clip(run, chunk) {
    const answer = await api.fetchApi(`/infinitetalk/clip?${new URLSearchParams({ run, chunk })}`);
    if (answer.status !== 200) return null;
    return { kind: answer.headers.get("Content-Type"), data: await answer.arrayBuffer() };
  },
  view: (file) => api.apiURL(`/view?${new URLSearchParams(file)}`),
};

// The sampler's redo_chunks as text; a value over a link cannot be changed here.
function redoOf(node) {
  const widget = () => node.widgets?.find(({ name }) => name === "redo_chunks");
  return {
    get: () => String(widget()?.value ?? ""),
    set(text) {
      if (!widget() || isLinked(node, "redo_chunks")) return false;
      widget().value = text;
      widget().callback?.(text);
      node.setDirtyCanvas?.(true, true);
      return true;
    },
  };
}

function addWatcher(node) {
  const texts = textsFor(app.extensionManager?.setting?.get("Comfy.Locale"));
  const watcher = new Watcher({ server, texts, redo: redoOf(node) });
  watchers.set(node, watcher);
  const { element } = watcher.panel;
  // The player has its own keys, which must not delete or copy the node.
  element.addEventListener("keydown", (event) => event.stopPropagation());
  // The progress text takes its room from the player, so that the node does not grow.
  const textHeight = () => (node.widgets.some(({ name }) => name === PROGRESS_TEXT) ? PROGRESS_TEXT_HEIGHT : 0);
  const widget = node.addDOMWidget("watch", "infinitetalk_watch", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT - textHeight(),
  });
  widget.serialize = false;
  node.hideOutputImages = true; // Nodes 2.0
  node.onDrawBackground = () => {}; // the canvas draws pictures and players of its own there
  const executed = node.onExecuted;
  node.onExecuted = function (output, ...more) {
    executed?.call(this, output, ...more);
    watcher.executed(output?.images?.[0]);
  };
  const removed = node.onRemoved;
  node.onRemoved = function (...given) {
    removed?.apply(this, given);
    watcher.dispose();
  };
}

function restoreAll() {
  for (const [id, node] of nodesOfKind(root(), SAMPLER)) {
    watchers.get(node)?.restore({ workflow: root().id ?? "", node: id });
  }
}

app.registerExtension({
  name: "infinitetalk.watchRun",
  nodeCreated(node) {
    if (node.comfyClass === SAMPLER) addWatcher(node);
  },
  afterConfigureGraph: restoreAll,
  setup() {
    api.addEventListener("infinitetalk.run", ({ detail }) => {
      if (detail.workflow === root()?.id) watchers.get(nodeAt(root(), detail.node))?.hear(detail);
    });
    api.addEventListener("b_preview_with_metadata", ({ detail }) => {
      watchers.get(nodeAt(root(), detail.nodeId))?.showStep(detail.blob);
    });
    api.addEventListener("reconnected", restoreAll);
  },
});
