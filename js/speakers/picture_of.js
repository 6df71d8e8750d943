// The picture on which people are placed: the one that the Reference Picker behind the Speakers gets.

const PICKER = "InfiniteTalkReferencePicker";
const MEDIA = ["image", "video", "file"]; // the widgets of ComfyUI's loaders that name one

const linkOf = (graph, id) => graph.links?.get?.(id) ?? graph.links?.[id] ?? graph._links?.get?.(id);

function targetsOf(node) {
  const ids = (node.outputs ?? []).flatMap((output) => output.links ?? []);
  return ids.map((id) => node.graph.getNodeById(linkOf(node.graph, id)?.target_id)).filter(Boolean);
}

function originOf(node, name) {
  const link = node.inputs?.find((input) => input.name === name)?.link;
  return link == null ? null : node.graph.getNodeById(linkOf(node.graph, link)?.origin_id);
}

// The picker that gets the node's speech, or whose reference goes to the same sampler.
function pickerOf(node) {
  for (const target of targetsOf(node)) {
    if (target.comfyClass === PICKER) return target;
    const reference = originOf(target, "reference");
    if (reference?.comfyClass === PICKER) return reference;
  }
  return null;
}

// The file that is dubbed, as /view wants it, with `isVideo`; null where another node makes it.
export function sourceOf(node) {
  const picker = node.graph && pickerOf(node);
  const loader = picker && (originOf(picker, "image") ?? originOf(picker, "video"));
  const value = loader?.widgets?.find(({ name }) => MEDIA.includes(name))?.value;
  if (typeof value !== "string" || !/\.\w+$/.test(value)) return null;
  const at = value.lastIndexOf("/");
  return {
    file: { filename: value.slice(at + 1), subfolder: value.slice(0, Math.max(at, 0)), type: "input" },
    isVideo: /\.(mp4|mov|m4v|webm|mkv|avi)$/i.test(value),
  };
}
