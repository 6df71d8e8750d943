// How good a chunk's numbers are (infinitetalk_core/chunks/metrics.py defines them), and the colors that say so.

export const GOOD = 0;
export const FAIR = 1;
export const BAD = 2;
export const COLORS = ["#3d9a68", "#d3a13c", "#cc4f47"];
export const UNMEASURED = "#5b6270";

// From which value on a number is fair, and bad. A join of 1 is as smooth as inside a chunk; a color drift of 2 is just
// visible; a sharpness of 1 is the source's.
const LIMITS = { join: [1.5, 2.5], drift: [2, 5], sharpness: [0.8, 0.5] };
export const NUMBERS = Object.keys(LIMITS);

export function level(number, value) {
  if (value == null) return null;
  const [fair, bad] = LIMITS[number];
  const reached = (limit) => (fair < bad ? value >= limit : value < limit);
  return reached(bad) ? BAD : reached(fair) ? FAIR : GOOD;
}

// The levels of a chunk, for join, drift and sharpness.
export function levels(chunk) {
  return NUMBERS.map((number) => level(number, chunk[number]));
}

export function worst(chunk) {
  return levels(chunk).reduce((found, other) => (other == null ? found : Math.max(found ?? GOOD, other)), null);
}

export function colorOf(found) {
  return found == null ? UNMEASURED : COLORS[found];
}
