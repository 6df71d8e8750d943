// What the player and the strip say, in the language of the page.

const ENGLISH = {
  empty: "The video appears here while it is made",
  chunks: ({ done, count }) => `${done} of ${count} chunks`,
  missing: ({ chunk, at }) => `chunk ${chunk} at ${at} s: not made yet`,
  numbers: ({ chunk, at, join, drift, sharpness }) =>
    `chunk ${chunk} at ${at} s: join ${join}, color drift ${drift}, sharpness ${sharpness}`,
  again: "; click again to redo it with a new seed",
  redo: ({ chunk, seed }) => `chunk ${chunk} will be made again with seed ${seed}; click to take it back`,
  all: " (without keep_intermediates, all others too)",
  linked: "redo_chunks comes over a link, so it cannot be changed here",
};

const CHINESE = {
  empty: "视频在生成时就会显示在这里",
  chunks: ({ done, count }) => `已完成 ${done}/${count} 段`,
  missing: ({ chunk, at }) => `第 ${chunk} 段，${at} 秒：尚未生成`,
  numbers: ({ chunk, at, join, drift, sharpness }) =>
    `第 ${chunk} 段，${at} 秒：衔接 ${join}，颜色偏移 ${drift}，清晰度 ${sharpness}`,
  again: "；再次点击可用新种子重做",
  redo: ({ chunk, seed }) => `第 ${chunk} 段将用种子 ${seed} 重做；点击可撤回`,
  all: "（未开启 keep_intermediates 时，其他段也会重做）",
  linked: "redo_chunks 由连线提供，无法在这里修改",
};

export function textsFor(language) {
  return /^zh/i.test(language ?? "") ? CHINESE : ENGLISH;
}

// A number of a chunk as people read it.
export function rounded(value, digits) {
  return value == null ? "–" : value.toFixed(digits);
}
