// People's places in a picture, as boxes [x0, y0, x1, y1] in its pixels, and as the text of the inputs box_1 and box_2.

const SMALLEST = 8; // pixels; less is a click and no box

// The box that a text describes; null for any other text.
export function boxOf(text) {
  const words = text.trim().split(/[\s,]+/);
  const numbers = words.map(Number);
  return words.length === 4 && words.every(Boolean) && numbers.every(Number.isFinite) ? numbers : null;
}

export function textOf(box) {
  return box.map(Math.round).join(", ");
}

// The box between two corners, inside the picture; null if hardly anything of it is.
export function boxBetween([x, y], [otherX, otherY], { width, height }) {
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  const box = [
    inside(Math.min(x, otherX), width),
    inside(Math.min(y, otherY), height),
    inside(Math.max(x, otherX), width),
    inside(Math.max(y, otherY), height),
  ];
  return box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST ? box : null;
}

// Where a person is without a box: in the left or the right half, as the server takes it.
export function halfOf(person, { width, height }) {
  const half = Math.floor(width / 2);
  const margin = Math.floor(half * 0.05);
  const left = person === 0 ? margin : Math.floor(half * 0.05 + half);
  const right = Math.floor(half * 0.95);
  const rows = [Math.floor(height * 0.05), Math.floor(height * 0.95)];
  return [left, rows[0], person === 0 ? right : right + half, rows[1]];
}

// How a picture lies in a frame that shows all of it: its scale, left and top.
export function fitted(picture, frame) {
  const scale = Math.min(frame.width / picture.width, frame.height / picture.height);
  return {
    scale,
    left: (frame.width - picture.width * scale) / 2,
    top: (frame.height - picture.height * scale) / 2,
  };
}
