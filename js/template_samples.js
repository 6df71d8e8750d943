// Puts the sample picture, video and voices of a template into ComfyUI's input folder when it is opened, where they are
// missing: Run then works at once. A file of that name that is there stays; no permission to write harms nothing.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// The samples that nodes of the graph still name: a saved workflow may have other files by now.
function samplesIn(graph) {
  const named = new Set((graph.nodes ?? []).flatMap((node) => node.widgets_values ?? []));
  return (graph.extra?.infinitetalk?.samples ?? []).filter((name) => named.has(name));
}

async function place(files) {
  const answer = await api.fetchApi("/infinitetalk/samples", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ files }),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}

function say(detail) {
  app.extensionManager?.toast?.add({ severity: "warn", summary: "InfiniteTalk", detail, life: 20000 });
}

app.registerExtension({
  name: "infinitetalk.templateSamples",
  async beforeConfigureGraph(graph) {
    const files = samplesIn(graph);
    if (!files.length) return;
    try {
      const { placed, problem } = await place(files);
      if (placed.length) await app.refreshComboInNodes();
      if (problem) say(problem);
    } catch (error) {
      say(`The samples of this template could not be placed (${error.message}): choose your own files.`);
    }
  },
});
