// The picture with the people's boxes, which are drawn with the mouse: first the chosen person's, then the other's.

import { boxBetween, boxOf, fitted, halfOf, textOf } from "./boxes.js";

export const HEIGHT = 200;
const COLORS = ["#4fa3ff", "#ff9d4f"];

export class BoxesPanel {
  // texts: {people: [two names], help, missing, masked}; box: {get(person), set(person, text), isMasked(person)}.
  constructor({ texts, box }) {
    Object.assign(this, { texts, box, person: 0, picture: null, drawn: null });
    this.element = document.createElement("div");
    this.element.dataset.infinitetalk = "boxes";
    this.element.style.cssText = `display:flex;flex-direction:column;gap:4px;height:100%;font:11px sans-serif;
      min-height:${HEIGHT - 40}px`;
    this.canvas = document.createElement("canvas");
    this.canvas.style.cssText = `flex:1;min-height:0;width:100%;cursor:crosshair;touch-action:none;background:#0006;
      border-radius:6px`;
    this.bar = document.createElement("div");
    this.bar.style.cssText = "display:flex;gap:4px;flex:none;align-items:center";
    this.buttons = texts.people.map((name, person) => this.button(name, person));
    this.line = document.createElement("span");
    this.line.style.cssText = "opacity:0.7;overflow:hidden";
    this.bar.append(...this.buttons, this.line);
    this.element.append(this.canvas, this.bar);
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    this.canvas.addEventListener("pointerup", () => this.end());
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.canvas);
  }

  dispose() {
    this.sizes.disconnect();
  }

  button(name, person) {
    const button = document.createElement("button");
    button.textContent = name;
    button.style.cssText = `border:2px solid ${COLORS[person]};border-radius:4px;background:none;color:inherit;
      cursor:pointer;flex:none`;
    button.addEventListener("click", () => this.choose(person));
    return button;
  }

  choose(person) {
    this.person = person;
    this.draw();
  }

  // picture: something that a canvas can draw, with its width and height in pixels; null where there is none.
  show(picture) {
    this.picture = picture;
    this.draw();
  }

  frame() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  // The point of the picture under the pointer; the graph's canvas scales the element.
  point(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const zoom = this.canvas.clientWidth / (bounds.width || 1);
    const { scale, left, top } = fitted(this.picture, this.frame());
    return [
      ((event.clientX - bounds.left) * zoom - left) / scale,
      ((event.clientY - bounds.top) * zoom - top) / scale,
    ];
  }

  begin(event) {
    event.stopPropagation();
    if (!this.picture || this.box.isMasked(this.person)) return;
    this.canvas.setPointerCapture?.(event.pointerId);
    this.corner = this.point(event);
  }

  drag(event) {
    if (!this.corner) return;
    this.drawn = boxBetween(this.corner, this.point(event), this.picture);
    this.draw();
  }

  end() {
    const { drawn, person } = this;
    Object.assign(this, { corner: null, drawn: null });
    if (drawn) {
      this.box.set(person, textOf(drawn));
      const other = 1 - person;
      // The server wants a place for both or for none.
      if (!this.box.get(other) && !this.box.isMasked(other)) this.box.set(other, textOf(halfOf(other, this.picture)));
      this.person = other;
    }
    this.draw();
  }

  draw() {
    const { width, height } = this.frame();
    const sharp = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * sharp);
    this.canvas.height = Math.round(height * sharp);
    this.line.textContent = this.sentence();
    this.buttons.forEach((button, person) => (button.style.opacity = person === this.person ? 1 : 0.55));
    if (!this.picture || !width) return;
    const context = this.canvas.getContext("2d");
    context.scale(sharp, sharp);
    const { scale, left, top } = fitted(this.picture, { width, height });
    context.drawImage(this.picture.element, left, top, this.picture.width * scale, this.picture.height * scale);
    for (const person of [0, 1]) {
      if (this.box.isMasked(person)) continue;
      const given = person === this.person && this.drawn ? this.drawn : boxOf(this.box.get(person));
      const [x0, y0, x1, y1] = given ?? halfOf(person, this.picture);
      context.strokeStyle = context.fillStyle = COLORS[person];
      context.lineWidth = 2;
      context.setLineDash(given ? [] : [5, 4]);
      context.strokeRect(left + x0 * scale, top + y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
      context.font = "bold 11px sans-serif";
      context.fillText(this.texts.people[person], left + x0 * scale + 4, top + y0 * scale + 13);
    }
  }

  sentence() {
    if (!this.picture) return this.texts.missing;
    return this.box.isMasked(this.person) ? this.texts.masked : this.texts.help;
  }
}
