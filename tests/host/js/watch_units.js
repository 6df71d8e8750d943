// Unit tests of js/watch: each exported function is one, and throws where something is wrong.
import { chunkAt, HEIGHT, rowsFor } from "/js/watch/chunk_strip.js";
import { chunkAtTime, nextChunk } from "/js/watch/growing_video.js";
import { BAD, FAIR, GOOD, level, worst } from "/js/watch/marks.js";
import { nodeAt, nodesOfKind } from "/js/watch/places.js";
import { newSeed, redone, withSeed } from "/js/watch/redo_text.js";
import { RunState } from "/js/watch/run_state.js";
import { textsFor } from "/js/watch/texts.js";
import { Watcher } from "/js/watch/watcher.js";

function equal(found, expected, what = "") {
  const [a, b] = [found, expected].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${what} ${a} instead of ${b}`);
}

export function a_new_seed_goes_into_the_text_of_chunks_to_redo() {
  equal(withSeed("", 4, 77), "4=77");
  equal(withSeed("4=77, 9@1.2", 2, 5), "4=77, 9@1.2, 2=5", "others stay");
  equal(withSeed("4=77 9@1.2", 4, 8), "4=8, 9@1.2", "a seed is replaced");
  equal(withSeed("4=77,9@1.2", 9, 8), "4=77, 9=8@1.2", "its time of the source stays");
  equal(withSeed("14=1", 4, 8), "14=1, 4=8", "chunk 14 is not chunk 4");
  equal([...redone("4=77\n9@1.2,  11=5@2")], [4, 9, 11]);
  equal([...redone(" ")], []);
  equal([newSeed(() => 0), newSeed(() => 0.999999999999)], [0, 2 ** 31 - 1]);
}

export function nodes_are_found_by_the_id_that_the_server_executes() {
  const sampler = (id) => ({ id, comfyClass: "Sampler" });
  const inner = { nodes: [sampler(31), { id: 2, comfyClass: "Other" }] };
  const graph = { nodes: [sampler(7), { id: 5, comfyClass: "Group", subgraph: inner }] };
  equal([...nodesOfKind(graph, "Sampler")].map(([id]) => id), ["7", "5:31"]);
  equal(nodeAt(graph, "5:31") === inner.nodes[0], true);
  equal(nodeAt(graph, 7) === graph.nodes[0], true);
  for (const gone of ["8", "5:32", "7:31", "6:31"]) equal(nodeAt(graph, gone), undefined, gone);
}

export function the_levels_of_a_chunk_follow_its_numbers() {
  equal([1, 1.6, 3].map((value) => level("join", value)), [GOOD, FAIR, BAD]);
  equal([0.3, 2, 9].map((value) => level("drift", value)), [GOOD, FAIR, BAD]);
  equal([1, 0.7, 0.4].map((value) => level("sharpness", value)), [GOOD, FAIR, BAD]);
  equal(worst({ join: null, drift: 0.3, sharpness: 0.4 }), BAD);
  equal(worst({ join: null, drift: null, sharpness: null }), null, "nothing measured");
}

export function every_chunk_can_be_hit() {
  for (const [width, count] of [[240, 1], [240, 5], [240, 34], [240, 35], [240, 300], [240, 10000], [10, 3]]) {
    for (const chunk of new Set([0, 1, count >> 1, count - 1].filter((index) => index < count))) {
      const rows = rowsFor(width, count, chunk);
      const row = rows.at(-1);
      const cell = width / row.count;
      equal(chunkAt(rows, width, (chunk - row.from + 0.5) * cell, HEIGHT - 1), chunk, `of ${count}`);
      equal(cell >= 7 || row.count === 1, true, "wide enough to be hit");
    }
  }
  const rows = rowsFor(240, 10000, 0);
  equal(Math.abs(chunkAt(rows, 240, 120, 2) - 5000) < 50, true, "the upper row goes anywhere");
  equal(chunkAt(rows, 240, 240, 2), null);
  equal(chunkAt(rowsFor(240, 0, 0), 240, 3, 3), null, "no chunks");
}

export function pieces_are_fetched_around_the_time_that_is_shown() {
  const starts = [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30];
  equal([-1, 0, 2.9, 3, 29, 99].map((time) => chunkAtTime(starts, 10, time)), [0, 0, 0, 1, 9, 9]);
  equal(nextChunk(starts, 0, 0, new Set()), null, "nothing is made");
  equal(nextChunk(starts, 2, 0, new Set([0])), 1);
  equal(nextChunk(starts, 2, 0, new Set([0, 1])), null, "all is there");
  equal(nextChunk(starts, 10, 0, new Set([0, 1, 2, 3, 4, 5, 6])), null, "enough is ahead");
  equal(nextChunk(starts, 10, 28, new Set([0])), 9, "after a jump");
}

const plan = (count) => ({
  run: "a", client: "me", state: "running", video: null, chunks: [], rate: 25, kept: false,
  starts: Array.from({ length: count }, (_, index) => index * 72), frames: count * 72,
});
const numbers = (index) => [index, 1, 0.3, 1, 9.5];

export function a_run_is_told_in_parts() {
  const run = new RunState(plan(3));
  equal([run.done, run.making, run.starts], [0, 0, [0, 2.88, 5.76, 8.64]]);
  run.take({ state: "running", video: null, chunks: [numbers(0), numbers(2)] });
  equal([run.done, run.making, run.known], [1, 1, 2], "seekable is what has no gap");
  run.take({ state: "finished", video: { filename: "a.mp4" }, chunks: [numbers(1)] });
  equal([run.done, run.making, run.running], [3, null, false]);
}

function watcherOf(answers, text = "", client = "me") {
  const asked = [];
  const server = {
    client: () => client,
    run: async (query) => (asked.push(query), answers.shift() ?? {}),
    clip: async () => null,
    view: (file) => `/view?${file.filename}`,
  };
  const redo = { text, get: () => redo.text, set: (value) => ((redo.text = value), true) };
  const watcher = new Watcher({ server, texts: textsFor("en"), redo });
  watcher.panel.element.style.width = "240px";
  document.body.replaceChildren(watcher.panel.element);
  return { watcher, asked, redo };
}
const soon = () => new Promise((resolve) => setTimeout(resolve, 20));
const event = (changes) => ({ run: "a", client: "me", state: "running", entries: 0, newest: null, ...changes });

export async function a_reloaded_page_asks_once_and_then_hears() {
  const { watcher, asked } = watcherOf([{ ...plan(3), chunks: [numbers(0)] }, { ...plan(3), chunks: [numbers(2)] }]);
  watcher.restore({ workflow: "w", node: "31" });
  await soon();
  equal([asked, watcher.run.done], [[{ workflow: "w", node: "31", client: "me" }], 1]);
  watcher.hear(event({ entries: 2, newest: numbers(1) }));
  equal([asked.length, watcher.run.done], [1, 2], "the event has the newest chunk");
  watcher.hear(event({ entries: 4, newest: numbers(2) }));
  await soon();
  equal(asked[1], { run: "a", since: 2 }, "a message was lost");
  watcher.dispose();
}

export async function a_page_keeps_its_own_run_while_another_page_runs_the_same_workflow() {
  const { watcher, asked } = watcherOf([plan(3), plan(2)]);
  watcher.hear(event({ run: "a" }));
  await soon();
  watcher.hear(event({ run: "b", client: "other" }));
  await soon();
  equal(asked.length, 1);
  watcher.hear(event({ run: "c" }));
  await soon();
  equal(asked.length, 2, "its own next run is shown");
  watcher.dispose();
  const second = watcherOf([plan(3)], "", "second tab");
  second.watcher.hear(event({ run: "a" }));
  await soon();
  equal(second.watcher.run.id, "a", "a page without a run of its own shows the one of this node");
  second.watcher.dispose();
}

export async function an_interrupted_run_shows_what_it_kept() {
  const video = { filename: "x_interrupted.mp4", subfolder: "", type: "output" };
  const stopped = { run: "a", state: "stopped", video, chunks: [] };
  const { watcher } = watcherOf([{ ...plan(3), chunks: [numbers(0)] }, stopped]);
  watcher.restore({});
  await soon();
  equal(watcher.panel.video.src.startsWith("blob:"), true);
  watcher.hear(event({ state: "stopped", entries: 1 }));
  await soon();
  equal(watcher.panel.video.src.endsWith("/view?x_interrupted.mp4"), true);
  equal([watcher.growing, watcher.panel.step.hidden, watcher.run.making], [null, true, null]);
  watcher.dispose();
}

export async function a_second_run_takes_the_old_video_away() {
  const file = { filename: "old.mp4", subfolder: "", type: "output" };
  const finished = { ...plan(1), state: "finished", video: file, chunks: [numbers(0)] };
  const { watcher } = watcherOf([finished, { ...plan(1), run: "b" }]);
  watcher.restore({});
  await soon();
  equal([watcher.panel.video.hidden, watcher.panel.video.src.endsWith("old.mp4")], [false, true]);
  watcher.hear(event({ run: "b" }));
  await soon();
  equal([watcher.panel.video.hidden, watcher.panel.video.src.includes("old.mp4")], [true, false]);
  watcher.showStep(new Blob(["x"]));
  equal([watcher.panel.step.hidden, watcher.panel.empty.hidden], [false, true]);
  watcher.dispose();
}

export async function clicks_play_then_redo_then_take_back() {
  const { watcher, redo } = watcherOf([{ ...plan(3), chunks: [numbers(0), numbers(1)] }], "1=5");
  watcher.restore({});
  await soon();
  watcher.click(1);
  equal([watcher.chosen, redo.text], [1, "1=5"], "the first click plays");
  watcher.click(1);
  equal(redo.text, `1=5, 2=${watcher.seed}`);
  equal(watcher.panel.line.textContent.startsWith(`chunk 2 will be made again with seed ${watcher.seed}`), true);
  watcher.click(1);
  equal(redo.text, "1=5", "the third takes it back");
  watcher.click(0);
  watcher.click(0);
  equal(redo.text, `1=${watcher.seed}`, "a chunk that was redone gets another seed");
  watcher.dispose();
}

export async function a_chunk_over_a_link_says_so() {
  const { watcher, redo } = watcherOf([{ ...plan(2), chunks: [numbers(0)] }]);
  redo.set = () => false;
  watcher.restore({});
  await soon();
  watcher.click(0);
  watcher.click(0);
  equal(watcher.panel.line.textContent, textsFor("en").linked);
  watcher.dispose();
}

export async function hover_shows_the_numbers() {
  const { watcher } = watcherOf([{ ...plan(3), chunks: [[0, null, 0.26, 0.98, 9]] }]);
  watcher.restore({});
  await soon();
  const canvas = watcher.panel.strip.element;
  const box = canvas.getBoundingClientRect();
  const move = (share) => canvas.dispatchEvent(
    new PointerEvent("pointermove", { clientX: box.left + box.width * share, clientY: box.top + box.height / 2 }),
  );
  move(0.1);
  equal(watcher.panel.line.textContent, "chunk 1 at 0.0 s: join –, color drift 0.3, sharpness 0.98");
  move(0.9);
  equal(watcher.panel.line.textContent, "chunk 3 at 5.8 s: not made yet");
  canvas.dispatchEvent(new PointerEvent("pointerleave"));
  equal(watcher.panel.line.textContent, "1 of 3 chunks");
  watcher.dispose();
}

export async function ten_thousand_chunks_stay_usable() {
  const count = 10000;
  const chunks = Array.from({ length: count - 1 }, (_, index) => numbers(index));
  const { watcher } = watcherOf([{ ...plan(count), chunks }]);
  const began = performance.now();
  watcher.restore({});
  await soon();
  watcher.panel.strip.draw();
  for (let i = 0; i < 20; i++) {
    watcher.hovered = i * 100;
    watcher.draw();
    watcher.panel.strip.draw();
  }
  watcher.hear(event({ entries: count, newest: numbers(count - 1) }));
  const took = performance.now() - began;
  equal(watcher.run.done, count);
  equal(took < 2000, true, `21 drawings took ${took} ms;`);
  const { width, height } = watcher.panel.strip.element;
  equal(width < 1000 && height < 200, true, "the strip is no wider for them");
  watcher.dispose();
}

export async function a_deleted_node_stops_asking() {
  const { watcher, asked } = watcherOf([plan(3), plan(3)]);
  watcher.restore({});
  await soon();
  watcher.dispose();
  watcher.restore({ late: true });
  await soon();
  equal([asked.length, watcher.growing.closed, watcher.panel.video.hasAttribute("src")], [1, true, false]);
}

export function the_page_speaks_chinese_too() {
  const [english, chinese] = [textsFor("en"), textsFor("zh-TW")];
  equal(Object.keys(chinese), Object.keys(english));
  equal(chinese.chunks({ done: 1, count: 3 }), "已完成 1/3 段");
}
