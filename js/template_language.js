// Shows the texts of the pack's templates in the frontend's language: each holds those of its groups, nodes, fields and
// note in extra.infinitetalk. A text that the user has changed is not in it and stays.
import { app } from "../../scripts/app.js";

function language() {
  return (app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").split("-")[0];
}

function translate(graph, { texts, note }) {
  const translated = (text) => texts[text] ?? text;
  for (const group of graph.groups ?? []) group.title = translated(group.title);
  for (const node of graph.nodes ?? []) {
    if (node.title) node.title = translated(node.title);
    for (const input of node.inputs ?? []) if (input.label) input.label = translated(input.label);
    if (node.type === "MarkdownNote" && note) node.widgets_values = [note];
  }
  delete graph.extra.infinitetalk[language()]; // once: afterwards the texts are the user's
}

app.registerExtension({
  name: "infinitetalk.templateLanguage",
  beforeConfigureGraph(graph) {
    const translation = graph.extra?.infinitetalk?.[language()];
    if (translation) translate(graph, translation);
  },
});
