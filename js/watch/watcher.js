// Keeps a sampler's player and strip as its run is. The server's events only say that there is something new: what is
// asked for then, so a reload, a second tab and a lost message need nothing of their own.

import { GrowingVideo, isSupported } from "./growing_video.js";
import { Panel } from "./panel.js";
import { newSeed, redone, withSeed } from "./redo_text.js";
import { RunState } from "./run_state.js";
import { rounded } from "./texts.js";

const POLL_MS = 5000; // while a run goes on; for lost messages

export class Watcher {
  // server: {client(), run(query), clip(run, chunk), view(file)}; texts: from textsFor; redo: {get(), set(text)} of the
  // sampler's redo_chunks, where set returns whether it could.
  constructor({ server, texts, redo }) {
    Object.assign(this, { server, texts, redo, run: null, chosen: null, hovered: null, before: null, disposed: false });
    this.panel = new Panel({
      texts,
      hover: (chunk) => {
        this.hovered = chunk;
        this.draw();
      },
      click: (chunk) => this.click(chunk),
    });
  }

  dispose() {
    this.disposed = true;
    clearTimeout(this.timer);
    this.growing?.close();
    this.panel.dispose();
  }

  // Shows the latest run of a place, if there is one: after a reload, or in a second tab.
  restore(place) {
    this.ask({ ...place, client: this.server.client() ?? "" });
  }

  // An event of a run at this node. It has the newest chunk, so that where nothing was missed nothing is asked for.
  hear({ run, client, state, entries, newest }) {
    const own = this.server.client();
    if (run === this.run?.id) {
      if (state === this.run.state && entries === this.run.known + 1) {
        this.run.take({ state, video: null, chunks: [newest] });
        this.show();
      } else if (entries > this.run.known || state !== this.run.state) this.ask({ run, since: this.run.known });
    } else if (client === own || this.run?.client !== own) {
      this.ask({ run }); // what this page itself has started is not replaced by what another one starts
    }
  }

  // The node was executed; the file may be of an earlier execution that ComfyUI remembers.
  executed(file) {
    this.panel.showStep(null);
    if (!file) return;
    if (this.run) this.ask({ run: this.run.id, since: this.run.known });
    else this.showFile(file);
  }

  showStep(blob) {
    if (!this.run || this.run.running) this.panel.showStep(blob);
  }

  // Asks the server, one question at a time; of those that come meanwhile only the last counts.
  async ask(query) {
    clearTimeout(this.timer);
    if (this.disposed) return;
    if (this.asking) {
      this.next = query;
      return;
    }
    this.asking = true;
    try {
      const answer = await this.server.run(query);
      if (!this.disposed) this.take(answer, query);
    } catch {
      // The server is away: asked again below.
    }
    this.asking = false;
    if (this.disposed) return;
    const next = this.next;
    this.next = null;
    if (next) this.ask(next.run === this.run?.id ? { run: next.run, since: this.run.known } : next);
    else if (this.run?.running) {
      this.timer = setTimeout(() => this.ask({ run: this.run.id, since: this.run.known }), POLL_MS);
    }
  }

  take(answer, query) {
    if (!answer.run) {
      if (this.run && query.run === this.run.id) this.run.state = "stopped"; // the server was started anew
    } else if (answer.run !== this.run?.id) {
      this.begin(new RunState(answer));
    } else if ((query.since ?? 0) === this.run.known) {
      this.run.take(answer);
    }
    this.show();
  }

  begin(run) {
    this.growing?.close();
    Object.assign(this, { run, growing: null, chosen: null, before: null, file: null });
    this.panel.clearVideo();
    this.panel.strip.element.hidden = run.chunks.length < 1;
  }

  show() {
    const { run } = this;
    if (!run) return;
    if (run.running) {
      if (isSupported()) {
        this.growing ??= new GrowingVideo(this.panel.video, (chunk) => this.server.clip(run.id, chunk));
        this.growing.grow(run.starts, run.done);
        this.panel.showVideo(run.done > 0);
      }
    } else {
      this.panel.showStep(null);
      if (run.video) this.showFile(run.video);
      else if (!run.done) this.panel.clearVideo();
    }
    this.draw();
  }

  // Shows a file from where the video before it was, playing if that did.
  showFile(file) {
    const name = JSON.stringify([file.subfolder, file.filename, this.run?.id]);
    if (name === this.file) return;
    this.file = name;
    const { video } = this.panel;
    const { currentTime, paused } = video;
    this.growing?.close();
    const from = this.growing ? currentTime : 0;
    this.growing = null;
    video.src = this.server.view(file);
    if (from) video.currentTime = from;
    if (from && !paused) video.play().catch(() => {});
    this.panel.showVideo(true);
  }

  // The first click on a chunk plays from there, the second redoes it, the third takes that back.
  click(chunk) {
    if (chunk !== this.chosen) {
      this.chosen = chunk;
      this.before = null;
      this.playFrom(chunk);
    } else if (this.before != null) {
      this.redo.set(this.before);
      this.before = null;
    } else {
      const before = this.redo.get();
      this.seed = newSeed();
      if (this.redo.set(withSeed(before, chunk + 1, this.seed))) this.before = before;
      else this.refused = true;
    }
    this.draw();
    this.refused = false;
  }

  playFrom(chunk) {
    if (!this.run.chunks[chunk] || this.panel.video.hidden) return;
    this.panel.video.currentTime = this.run.starts[chunk] + 0.001;
    this.panel.video.play().catch(() => {}); // the next click, or a browser that forbids it, may end it at once
  }

  draw() {
    const { run, chosen, hovered, panel } = this;
    if (!run) return;
    panel.strip.show({ chunks: run.chunks, making: run.making, chosen, redo: redone(this.redo.get()) });
    panel.say(this.sentence(hovered ?? chosen));
  }

  sentence(chunk) {
    const { run, texts } = this;
    if (this.refused) return texts.linked;
    if (chunk == null) return texts.chunks({ done: run.chunks.filter(Boolean).length, count: run.chunks.length });
    if (chunk === this.chosen && this.before != null) {
      return texts.redo({ chunk: chunk + 1, seed: this.seed }) + (run.kept || run.running ? "" : texts.all);
    }
    const found = run.chunks[chunk];
    const place = { chunk: chunk + 1, at: rounded(run.starts[chunk], 1) };
    if (!found) return texts.missing(place);
    const numbers = {
      join: rounded(found.join, 1),
      drift: rounded(found.drift, 1),
      sharpness: rounded(found.sharpness, 2),
    };
    return texts.numbers({ ...place, ...numbers }) + (chunk === this.chosen ? texts.again : "");
  }
}
