// Fills in %date:…% and %Node.widget% in the sampler's filename_prefix when a job is sent. The frontend does so for its
// own save nodes, whose list is fixed; the saved workflow keeps what was written.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "infinitetalk.filenameTokens",
  nodeCreated(node) {
    if (node.comfyClass !== "InfiniteTalkChunkSampler") return;
    const widget = node.widgets?.find(({ name }) => name === "filename_prefix");
    const fillIn = window.comfyAPI?.utils?.applyTextReplacements;
    // Without the frontend's function the tokens are sent as they are, and the server says so in a sentence.
    if (widget && fillIn) widget.serializeValue = () => fillIn(app, widget.value);
  },
});
