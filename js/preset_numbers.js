// Writes the numbers that a choice stands for into the inputs that it makes gray: under the preset of 8 steps there are
// 8 steps. The server gives them with the choice, as `numbers_of_options` (nodes/types.py). What the user had typed
// under an option without numbers, such as custom, is back when that is chosen again.
import { app } from "../../scripts/app.js";
import { follow, isLinked, widgetOf } from "./widgets.js";

const NUMBERS = {}; // by node class and choice: by option: by input

function write(node, numbers) {
  for (const [name, number] of Object.entries(numbers ?? {})) {
    const widget = widgetOf(node, name);
    if (widget && widget.value !== number) widget.value = number;
  }
  node.setDirtyCanvas?.(true, true);
}

function keepUpToDate(node, choice, options) {
  const names = [...new Set(Object.values(options).flatMap(Object.keys))];
  let typed = null; // the user's own numbers, while others are written over them
  let before = widgetOf(node, choice)?.value;
  const update = () => {
    const option = widgetOf(node, choice)?.value;
    if (isLinked(node, choice)) return; // which option comes over the link is not known here
    if (options[option]) {
      if (!options[before]) typed = Object.fromEntries(names.map((name) => [name, widgetOf(node, name)?.value]));
      write(node, options[option]);
    } else if (options[before] && typed) {
      write(node, typed);
    }
    before = option;
  };
  const loaded = () => {
    typed = null; // numbers that were saved under another option are nobody's wish
    before = widgetOf(node, choice)?.value;
    update();
  };
  const widget = widgetOf(node, choice);
  if (widget) follow(widget, "callback", update);
  follow(node, "onConfigure", loaded);
  loaded();
}

app.registerExtension({
  name: "infinitetalk.presetNumbers",
  beforeRegisterNodeDef(nodeType, nodeData) {
    for (const inputs of [nodeData.input?.required ?? {}, nodeData.input?.optional ?? {}]) {
      for (const [choice, [, settings]] of Object.entries(inputs)) {
        const options = settings?.numbers_of_options;
        if (options) (NUMBERS[nodeData.name] ??= {})[choice] = options;
      }
    }
  },
  nodeCreated(node) {
    for (const [choice, options] of Object.entries(NUMBERS[node.comfyClass] ?? {})) keepUpToDate(node, choice, options);
  },
});
