// Unit tests of js/speakers: each exported function is one, and throws where something is wrong.
import { boxBetween, boxOf, fitted, halfOf, textOf } from "/js/speakers/boxes.js";
import { BoxesPanel } from "/js/speakers/panel.js";
import { sourceOf } from "/js/speakers/picture_of.js";

function equal(found, expected, what = "") {
  const [a, b] = [found, expected].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${what} ${a} instead of ${b}`);
}

const PICTURE = { width: 400, height: 200 };

export function a_box_is_read_and_written_as_text() {
  equal(boxOf("120, 80, 420,600"), [120, 80, 420, 600]);
  equal(boxOf(" 1 2 3 4 "), [1, 2, 3, 4]);
  for (const text of ["", "1,2,3", "1,2,3,4,5", "a, 1, 2, 3", ", , ,"]) equal(boxOf(text), null, text);
  equal(textOf([1.4, 2.6, 3, 4]), "1, 3, 3, 4");
}

export function a_box_stays_inside_the_picture() {
  equal(boxBetween([300, 150], [100, 50], PICTURE), [100, 50, 300, 150], "from any corner");
  equal(boxBetween([-50, -50], [999, 999], PICTURE), [0, 0, 400, 200], "clamped");
  equal(boxBetween([350, 100], [500, 120], PICTURE), [350, 100, 400, 120]);
  equal(boxBetween([500, 10], [600, 90], PICTURE), null, "outside");
  equal(boxBetween([100, 100], [103, 150], PICTURE), null, "a click is no box");
}

export function without_boxes_people_are_in_the_halves_as_the_server_takes_them() {
  equal([0, 1].map((person) => halfOf(person, PICTURE)), [[10, 10, 190, 190], [210, 10, 390, 190]]);
}

export function a_picture_is_shown_whole() {
  equal(fitted(PICTURE, { width: 200, height: 200 }), { scale: 0.5, left: 0, top: 50 });
  equal(fitted(PICTURE, { width: 800, height: 100 }), { scale: 0.5, left: 300, top: 0 });
}

// A graph of Load Image → picker ← Speakers, and of both → sampler, where the picker has no speech.
function graphOf({ toSampler, file = "a.png", loader = { name: "image", value: file } }) {
  const nodes = {
    1: { id: 1, comfyClass: "LoadImage", widgets: [loader], outputs: [{ links: [10] }] },
    2: { id: 2, comfyClass: "InfiniteTalkSpeakers", outputs: [{ links: [11] }] },
    3: {
      id: 3,
      comfyClass: "InfiniteTalkReferencePicker",
      inputs: [{ name: "image", link: 10 }, { name: "video", link: null }],
    },
    4: { id: 4, comfyClass: "InfiniteTalkChunkSampler", inputs: [{ name: "reference", link: 12 }] },
  };
  const links = {
    10: { origin_id: 1, target_id: 3 },
    11: { origin_id: 2, target_id: toSampler ? 4 : 3 },
    12: { origin_id: 3, target_id: 4 },
  };
  const graph = { links, getNodeById: (id) => nodes[id] ?? null };
  for (const node of Object.values(nodes)) node.graph = graph;
  return nodes[2];
}

export function the_picture_is_that_of_the_picker() {
  const file = { filename: "a.png", subfolder: "", type: "input" };
  for (const toSampler of [true, false]) equal(sourceOf(graphOf({ toSampler })), { file, isVideo: false });
  const video = { ...file, filename: "d.MP4", subfolder: "b/c" };
  equal(sourceOf(graphOf({ file: "b/c/d.MP4" })), { file: video, isVideo: true });
  equal(sourceOf(graphOf({ loader: { name: "strength", value: 1 } })), null, "another node makes it");
  equal(sourceOf({ graph: null, outputs: [] }), null, "not in a graph yet");
}

function panelOf(boxes = ["", ""], masked = [false, false]) {
  const box = {
    get: (person) => boxes[person],
    set: (person, text) => (boxes[person] = text),
    isMasked: (person) => masked[person],
  };
  const texts = { people: ["Ann", "Bob"], help: "draw", missing: "none", masked: "mask" };
  const panel = new BoxesPanel({ texts, box });
  panel.element.style.cssText += ";width:400px;height:240px";
  document.body.replaceChildren(panel.element);
  panel.canvas.style.cssText += ";flex:none;width:400px;height:200px";
  const element = Object.assign(document.createElement("canvas"), PICTURE);
  panel.show({ element, ...PICTURE });
  const drag = (...corners) => {
    const { left, top } = panel.canvas.getBoundingClientRect();
    const names = ["pointerdown", "pointermove", "pointerup"];
    const points = [corners[0], corners[1], corners[1]];
    names.forEach((name, i) => panel.canvas.dispatchEvent(
      new PointerEvent(name, { clientX: left + points[i][0], clientY: top + points[i][1], bubbles: true }),
    ));
  };
  panel.canvas.setPointerCapture = () => {};
  return { panel, boxes, drag };
}

export function drawing_places_both_people() {
  const { panel, boxes, drag } = panelOf();
  drag([20, 20], [120, 160]);
  equal(boxes, ["20, 20, 120, 160", "210, 10, 390, 190"], "the other one gets the half, as both or none are needed");
  equal(panel.person, 1, "the other one's turn");
  drag([300, 50], [900, 150]);
  equal(boxes[1], "300, 50, 400, 150", "clamped");
  drag([50, 50], [51, 51]);
  equal(boxes[0], "20, 20, 120, 160", "a click changes nothing");
  panel.dispose();
}

export function a_person_with_a_mask_gets_no_box() {
  const { panel, boxes, drag } = panelOf(["", ""], [true, false]);
  equal(panel.line.textContent, "mask");
  drag([20, 20], [120, 160]);
  equal(boxes, ["", ""]);
  panel.choose(1);
  drag([20, 20], [120, 160]);
  equal(boxes, ["", "20, 20, 120, 160"]);
  panel.dispose();
}

export function without_a_picture_it_says_what_to_do() {
  const { panel, boxes, drag } = panelOf();
  panel.show(null);
  drag([20, 20], [120, 160]);
  equal([panel.line.textContent, boxes], ["none", ["", ""]]);
  panel.dispose();
}
