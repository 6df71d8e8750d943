// Speakers: people are placed by drawing boxes on the picture. The inputs box_1 and box_2 keep them, for programs too.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { BoxesPanel, HEIGHT } from "./speakers/panel.js";
import { sourceOf } from "./speakers/picture_of.js";

const SPEAKERS = "InfiniteTalkSpeakers";
const LOOK_MS = 1000; // no event tells that another node shows another picture

const ENGLISH = {
  people: ["Person 1", "Person 2"],
  help: "draw a box around the person",
  missing: "load a picture or a video for the Reference Picker to place people here",
  masked: "this person has a mask",
};
const CHINESE = {
  people: ["人物 1", "人物 2"],
  help: "在人物周围画一个框",
  missing: "请先为 Reference Picker 加载图片或视频，然后在此标出人物",
  masked: "此人物已有遮罩",
};

function load({ file, isVideo }) {
  const url = api.apiURL(`/view?${new URLSearchParams(file)}`);
  return new Promise((resolve) => {
    const element = document.createElement(isVideo ? "video" : "img");
    const done = (width, height) => resolve({ element, width, height });
    element.onerror = () => resolve(null);
    element.onload = () => done(element.naturalWidth, element.naturalHeight);
    element.onloadeddata = () => done(element.videoWidth, element.videoHeight);
    Object.assign(element, isVideo ? { muted: true, preload: "auto", src: url } : { src: url });
  });
}

function boxesOf(node) {
  const widget = (person) => node.widgets?.find(({ name }) => name === `box_${person + 1}`);
  return {
    get: (person) => String(widget(person)?.value ?? ""),
    set(person, text) {
      widget(person).value = text;
      widget(person).callback?.(text);
      node.setDirtyCanvas?.(true, true);
    },
    isMasked: (person) => node.inputs?.some(({ name, link }) => name === `mask_${person + 1}` && link != null) ?? false,
  };
}

app.registerExtension({
  name: "infinitetalk.speakerBoxes",
  nodeCreated(node) {
    if (node.comfyClass !== SPEAKERS) return;
    const isChinese = /^zh/i.test(app.extensionManager?.setting?.get("Comfy.Locale") ?? "");
    const panel = new BoxesPanel({ texts: isChinese ? CHINESE : ENGLISH, box: boxesOf(node) });
    const widget = node.addDOMWidget("people", "infinitetalk_boxes", panel.element, {
      serialize: false,
      getMinHeight: () => HEIGHT,
    });
    widget.serialize = false;
    let shown = null;
    const look = async () => {
      const source = sourceOf(node);
      const name = source && JSON.stringify(source);
      if (name === shown) return panel.draw();
      shown = name;
      const picture = source && (await load(source));
      if (name === shown) panel.show(picture);
    };
    const timer = setInterval(look, LOOK_MS);
    const removed = node.onRemoved;
    node.onRemoved = function (...given) {
      removed?.apply(this, given);
      clearInterval(timer);
      panel.dispose();
    };
  },
});
