// How the pack's templates and blueprint are listed. The server lists templates in the order of the disk: here forms come
// first, then graphs by name. It reads no search words of a blueprint, and the frontend searches those only that the
// list has, not those in the blueprint's file: they are added here.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const PACK = new URL(import.meta.url).pathname.split("/").at(-2); // the folder in custom_nodes
const WORDS = ["lip sync", "lipsync", "talking head", "avatar", "dub", "wav2vec"];
const FIRST = ["Talking picture", "Dub a video", "Two people"];

function place(name) {
  const number = FIRST.findIndex((form) => name.startsWith(form));
  return number < 0 ? FIRST.length : number;
}

// Lets `change` work on what a function of the frontend's API returns.
function after(name, change) {
  const before = api[name];
  if (typeof before !== "function") return;
  api[name] = async function (...args) {
    const found = await before.apply(this, args);
    change(found ?? {});
    return found;
  };
}

app.registerExtension({
  name: "infinitetalk.listed",
  init() {
    after("getWorkflowTemplates", (templates) => {
      templates[decodeURIComponent(PACK)]?.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
    });
    after("getGlobalSubgraphs", (blueprints) => {
      for (const { info } of Object.values(blueprints)) {
        if (info?.node_pack === `custom_nodes.${decodeURIComponent(PACK)}`) info.search_aliases ??= WORDS;
      }
    });
  },
});
