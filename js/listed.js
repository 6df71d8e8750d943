// Lists the pack's templates in order: forms first, then graphs by name. The server lists them as the disk does.
import { api } from "../../scripts/api.js";

const PACK = decodeURIComponent(new URL(import.meta.url).pathname.split("/").at(-2)); // the folder in custom_nodes
const FIRST = ["Talking picture", "Dub a video", "Two people"];

function place(name) {
  const number = FIRST.findIndex((form) => name.startsWith(form));
  return number < 0 ? FIRST.length : number;
}

const listed = api.getWorkflowTemplates;
if (typeof listed === "function") {
  api.getWorkflowTemplates = async function () {
    const templates = await listed.call(this);
    templates?.[PACK]?.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
    return templates;
  };
}
