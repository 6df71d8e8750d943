// The text of the sampler's redo_chunks, such as "4=77, 9@1.2": chunks to make again, counted from 1, with another seed
// or from another time of the source.

const MOST_SEED = 2 ** 31;

const wordsOf = (text) => text.split(/[\s,]+/).filter(Boolean);
const numberOf = (word) => Number(word.split(/[=@]/)[0]);

// The chunks that a text names.
export function redone(text) {
  return new Set(wordsOf(text).map(numberOf));
}

// The text with another seed for a chunk; its time of the source and the other chunks stay.
export function withSeed(text, chunk, seed) {
  const words = wordsOf(text);
  const at = words.findIndex((word) => numberOf(word) === chunk);
  const time = at < 0 ? "" : words[at].replace(/^[^@]*/, "");
  const word = `${chunk}=${seed}${time}`;
  return (at < 0 ? [...words, word] : words.with(at, word)).join(", ");
}

export function newSeed(random = Math.random) {
  return Math.floor(random() * MOST_SEED);
}
