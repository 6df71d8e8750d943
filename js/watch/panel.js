// What the sampler shows: the player with the newest step's picture, the strip of chunks, a line of text. Its height is
// the same with and without a video, so the node does not grow.

import { ChunkStrip } from "./chunk_strip.js";

export const HEIGHT = 280;

const STYLE = `
.infinitetalk-watch { display: flex; flex-direction: column; gap: 4px; min-height: 200px; height: 100%;
  box-sizing: border-box; font: 11px sans-serif; color: var(--input-text, #ccc); }
.infinitetalk-watch .stage { position: relative; flex: 1; min-height: 0; border-radius: 6px; overflow: hidden;
  background: #0006; }
.infinitetalk-watch .stage > * { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.infinitetalk-watch .stage > .step { pointer-events: none; }
.infinitetalk-watch .stage.playing > .step { inset: 4px 4px auto auto; width: 28%; height: auto; max-height: 40%;
  border-radius: 4px; }
.infinitetalk-watch .stage > p { display: grid; place-items: center; margin: 0; text-align: center; opacity: 0.6; }
.infinitetalk-watch .line { flex: none; min-height: 26px; line-height: 13px; overflow: hidden; }
.infinitetalk-watch [hidden] { display: none !important; }
/* Nodes 2.0 would show the picture of the newest step once more, below, and leave it there. */
[data-testid^="node-body-"]:has(.infinitetalk-watch) > img,
[data-testid^="node-body-"]:has(.infinitetalk-watch) > img + div { display: none; }
`;

function addStyle() {
  if (document.getElementById("infinitetalk-watch-style")) return;
  const style = document.createElement("style");
  style.id = "infinitetalk-watch-style";
  style.textContent = STYLE;
  document.head.append(style);
}

function make(tag, className, properties = {}) {
  return Object.assign(document.createElement(tag), { className }, properties);
}

export class Panel {
  // texts: from textsFor; hover, click: of the strip.
  constructor({ texts, hover, click }) {
    addStyle();
    this.element = make("div", "infinitetalk-watch");
    this.element.dataset.infinitetalk = "watch";
    this.stage = make("div", "stage");
    this.empty = make("p", "", { textContent: texts.empty });
    this.video = make("video", "player", { controls: true, playsInline: true, preload: "auto", hidden: true });
    this.step = make("img", "step", { hidden: true, alt: "" });
    this.stage.append(this.empty, this.video, this.step);
    this.strip = new ChunkStrip({ hover, click });
    this.strip.element.hidden = true;
    this.line = make("div", "line");
    this.element.append(this.stage, this.strip.element, this.line);
  }

  dispose() {
    this.strip.dispose();
    this.showStep(null);
    this.clearVideo();
  }

  // The picture of the newest step, small beside a video, or null.
  showStep(blob) {
    if (this.step.src) URL.revokeObjectURL(this.step.src);
    this.step.removeAttribute("src");
    if (blob) this.step.src = URL.createObjectURL(blob);
    this.step.hidden = !blob;
    this.refresh();
  }

  showVideo(shown) {
    this.video.hidden = !shown;
    this.refresh();
  }

  // Takes the video out of the player.
  clearVideo() {
    if (this.video.src) {
      this.video.removeAttribute("src");
      this.video.load();
    }
    this.showVideo(false);
  }

  refresh() {
    this.stage.classList.toggle("playing", !this.video.hidden);
    this.empty.hidden = !this.video.hidden || !this.step.hidden;
  }

  say(text) {
    this.line.textContent = text;
  }
}
