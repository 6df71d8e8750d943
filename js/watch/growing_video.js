// Plays a video while it is made: fetches the pieces around the time that is shown and gives them to the video element
// (Media Source Extensions). Far from there nothing is kept, so a video of hours takes no more memory than a short one.

const AHEAD_SECONDS = 20;
const BEHIND_SECONDS = 40;
const RETRY_MS = 1000;

// The chunk that is shown at a time, among `done` chunks that begin at `starts` (seconds, ascending).
export function chunkAtTime(starts, done, seconds) {
  let low = 0;
  let high = done - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle] <= seconds) low = middle;
    else high = middle - 1;
  }
  return low;
}

// The next chunk to fetch, or null: from the one that is shown on, up to AHEAD_SECONDS.
export function nextChunk(starts, done, seconds, fetched) {
  if (!done) return null;
  for (let chunk = chunkAtTime(starts, done, seconds); chunk < done; chunk++) {
    if (starts[chunk] > seconds + AHEAD_SECONDS) return null;
    if (!fetched.has(chunk)) return chunk;
  }
  return null;
}

export function isSupported() {
  return typeof MediaSource !== "undefined";
}

export class GrowingVideo {
  // video: the element; clip: (chunk) -> {kind, data} or null, where kind is the MIME type and data an ArrayBuffer.
  constructor(video, clip) {
    Object.assign(this, { video, clip, starts: [], done: 0, end: 0, fetched: new Set(), closed: false });
    this.source = new MediaSource();
    this.url = URL.createObjectURL(this.source);
    this.pump = this.pump.bind(this);
    this.source.addEventListener("sourceopen", this.pump);
    this.events = ["seeking", "timeupdate", "waiting"];
    for (const name of this.events) video.addEventListener(name, this.pump);
    video.src = this.url;
  }

  // starts: seconds at which the chunks begin, and the end of the last one behind them; done: how many there are, from
  // the first on.
  grow(starts, done) {
    Object.assign(this, { starts, done, end: starts[done] });
    this.pump();
  }

  close() {
    this.closed = true;
    clearTimeout(this.retry);
    for (const name of this.events) this.video.removeEventListener(name, this.pump);
    URL.revokeObjectURL(this.url);
  }

  get isOpen() {
    return !this.closed && this.source.readyState === "open";
  }

  async pump() {
    if (this.pumping || !this.isOpen) return;
    this.pumping = true;
    try {
      this.setDuration();
      let chunk;
      while (this.isOpen && (chunk = nextChunk(this.starts, this.done, this.video.currentTime, this.fetched)) != null) {
        const found = await this.clip(chunk);
        if (!this.isOpen) return;
        if (!found || !(await this.append(chunk, found))) return this.later();
        this.setDuration();
        await this.forget(this.video.currentTime - BEHIND_SECONDS);
      }
    } catch (error) {
      if (!this.closed) this.later(); // the server is away, or the element was taken out of the page
    } finally {
      this.pumping = false;
    }
  }

  later() {
    clearTimeout(this.retry);
    if (!this.closed) this.retry = setTimeout(this.pump, RETRY_MS);
  }

  async append(chunk, { kind, data }) {
    this.buffer ??= this.source.addSourceBuffer(kind);
    try {
      this.buffer.appendBuffer(data);
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      await this.forget(this.video.currentTime - 2);
      return false;
    }
    await this.settled();
    this.fetched.add(chunk);
    return true;
  }

  // The end of what exists is the end of the video: the player's bar covers it, and seeking stays inside.
  setDuration() {
    if (this.buffer && !this.buffer.updating && this.end && this.source.duration !== this.end) {
      const buffered = this.buffer.buffered;
      const last = buffered.length ? buffered.end(buffered.length - 1) : 0;
      this.source.duration = Math.max(this.end, last);
    }
  }

  // Drops what was shown long ago.
  async forget(before) {
    const buffered = this.buffer.buffered;
    if (!buffered.length || buffered.start(0) >= before - 1) return;
    this.buffer.remove(0, before);
    await this.settled();
    for (const chunk of this.fetched) if (this.starts[chunk] < before) this.fetched.delete(chunk);
  }

  settled() {
    return new Promise((resolve, reject) => {
      if (!this.buffer.updating) return resolve();
      this.buffer.addEventListener("updateend", resolve, { once: true });
      this.buffer.addEventListener("error", () => reject(new Error("the piece cannot be played")), { once: true });
      this.source.addEventListener("sourceclose", resolve, { once: true });
    });
  }
}
