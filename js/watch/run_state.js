// A run as the server tells it, in parts: the plan, then the numbers of more and more chunks.

export class RunState {
  constructor(answer) {
    this.id = answer.run;
    this.client = answer.client;
    this.known = 0; // entries
    this.done = 0; // chunks from the first on, without a gap
    this.take(answer);
  }

  take({ state, video, chunks, starts, frames, rate, kept }) {
    if (starts) {
      this.starts = [...starts, frames].map((frame) => frame / rate);
      this.chunks = new Array(starts.length).fill(null);
      this.kept = kept;
    }
    this.state = state;
    this.video = video;
    for (const [index, join, drift, sharpness, seconds] of chunks) {
      this.chunks[index] = { join, drift, sharpness, seconds };
    }
    this.known += chunks.length;
    while (this.done < this.chunks.length && this.chunks[this.done]) this.done++;
  }

  get running() {
    return this.state === "running";
  }

  // The chunk that is being made, or null.
  get making() {
    return this.running && this.done < this.chunks.length ? this.done : null;
  }
}
