// The strip under the player: one cell a chunk, in three bands for join, color drift and sharpness. Where the cells of
// all chunks would be too narrow to be hit, a row of all of them stands over a row of those around the chosen one.

import { COLORS, colorOf, levels, worst } from "./marks.js";

export const HEIGHT = 30;
const NARROWEST = 7; // pixels a cell
const WIDE = 14; // pixels a cell in the row around the chosen chunk
const OVERVIEW = 10; // pixels, the height of the row of all chunks
const GAP = 1;

// The rows of the strip: from (the first chunk), count (of chunks), y and height in pixels.
export function rowsFor(width, count, focus) {
  if (count * NARROWEST <= width) return [{ from: 0, count, y: 0, height: HEIGHT }];
  const shown = Math.max(1, Math.floor(width / WIDE));
  const from = Math.max(0, Math.min(count - shown, focus - Math.floor(shown / 2)));
  return [
    { from: 0, count, y: 0, height: OVERVIEW },
    { from, count: shown, y: OVERVIEW + 2, height: HEIGHT - OVERVIEW - 2 },
  ];
}

// The chunk at a point of the strip; null where there is none.
export function chunkAt(rows, width, x, y) {
  const row = rows.findLast((other) => y >= other.y) ?? rows[0];
  if (!row?.count || !(x >= 0 && x < width)) return null;
  return row.from + Math.min(row.count - 1, Math.floor((x / width) * row.count));
}

export class ChunkStrip {
  // hover: called with the chunk under the pointer or null; click: with the one that was clicked.
  constructor({ hover, click }) {
    this.element = document.createElement("canvas");
    this.element.dataset.infinitetalk = "chunks";
    this.element.style.cssText = `display:block;width:100%;height:${HEIGHT}px;flex:none;cursor:pointer`;
    this.view = { chunks: [], making: null, chosen: null, redo: new Set() };
    const at = (event) => chunkAt(this.rows(), this.element.clientWidth, ...this.point(event));
    this.element.addEventListener("pointermove", (event) => hover(at(event)));
    this.element.addEventListener("pointerleave", () => hover(null));
    this.element.addEventListener("click", (event) => {
      const chunk = at(event);
      if (chunk != null) click(chunk);
    });
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.element);
  }

  dispose() {
    this.sizes.disconnect();
  }

  // The canvas of the graph scales its nodes, so the size on the screen is not that of the element.
  point(event) {
    const box = this.element.getBoundingClientRect();
    const scale = this.element.clientWidth / (box.width || 1);
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  rows() {
    const { chunks, chosen, making } = this.view;
    return rowsFor(this.element.clientWidth, chunks.length, chosen ?? making ?? 0);
  }

  // chunks: the numbers of each chunk, null for one that is not made; making: the one in the sampler, or null; chosen:
  // the one that was clicked, or null; redo: those to make again.
  show(view) {
    this.view = view;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    const { element } = this;
    const width = element.clientWidth;
    if (!width) return;
    const sharp = window.devicePixelRatio || 1;
    element.width = Math.round(width * sharp);
    element.height = Math.round(HEIGHT * sharp);
    const context = element.getContext("2d");
    context.scale(sharp, sharp);
    for (const row of this.rows()) {
      if ((width / row.count) >= NARROWEST) this.drawCells(context, row, width);
      else this.drawOverview(context, row, width);
    }
  }

  drawCells(context, row, width) {
    const { chunks, making, chosen, redo } = this.view;
    const step = width / row.count;
    for (let index = row.from; index < row.from + row.count; index++) {
      const chunk = chunks[index];
      const left = (index - row.from) * step;
      const wide = step - GAP;
      if (chunk) {
        const band = row.height / 3;
        levels(chunk).forEach((found, i) => {
          context.fillStyle = colorOf(found);
          context.fillRect(left, row.y + i * band, wide, band - (i < 2 ? 0.5 : 0));
        });
      } else {
        context.fillStyle = index === making ? "#3b76b5" : "#8884";
        context.fillRect(left, row.y, wide, row.height);
      }
      if (index === chosen || redo.has(index + 1)) {
        context.lineWidth = 2;
        context.strokeStyle = redo.has(index + 1) ? "#b58cff" : "#fff";
        context.strokeRect(left + 1, row.y + 1, wide - 2, row.height - 2);
      }
    }
  }

  // One column a pixel, each with the worst of its chunks.
  drawOverview(context, row, width) {
    const { chunks, making, chosen } = this.view;
    for (let x = 0; x < width; x++) {
      const first = Math.floor((x / width) * row.count);
      const after = Math.max(first + 1, Math.floor(((x + 1) / width) * row.count));
      let found = null;
      let made = false;
      for (let index = first; index < after; index++) {
        if (!chunks[index]) continue;
        made = true;
        found = Math.max(found ?? -1, worst(chunks[index]) ?? -1);
      }
      const inside = (chunk) => chunk != null && chunk >= first && chunk < after;
      context.fillStyle = made ? colorOf(COLORS[found] ? found : null) : inside(making) ? "#3b76b5" : "#8884";
      if (inside(chosen)) context.fillStyle = "#fff";
      context.fillRect(x, row.y, 1, row.height);
    }
  }
}
