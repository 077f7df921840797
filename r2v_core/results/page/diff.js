// What the noise did to a text: first sentence by sentence, then word by word where sentences were changed. Both by a
// longest common subsequence (Hirschberg 1975 describes the table).

const MAX_CELLS = 4_000_000; // beyond this the changed middle is shown as one replacement

const sentencesOf = (text) => text.match(/[^.!?\n]*(?:[.!?]+|\n|$)\s*/gu).filter(Boolean);
const wordsOf = (text) => text.match(/\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) ?? [];

/** Runs of text in reading order: kind "same", "added" (by the noise) or "hidden" (by the noise). */
function textDiff(clean, seen) {
  const runs = [];
  const push = (kind, text) => {
    if (!text) return;
    const last = runs.at(-1);
    if (last && last.kind === kind) last.text += text;
    else runs.push({ kind, text });
  };
  const changed = { hidden: "", added: "" };
  const flush = () => {
    const { hidden, added } = changed;
    if (hidden && added) for (const [kind, word] of align(wordsOf(hidden), wordsOf(added))) push(kind, word);
    else push(hidden ? "hidden" : "added", hidden || added);
    changed.hidden = changed.added = "";
  };
  for (const [kind, sentence] of align(sentencesOf(clean), sentencesOf(seen))) {
    if (kind === "same") {
      flush();
      push(kind, sentence);
    } else {
      changed[kind] += sentence;
    }
  }
  flush();
  return runs;
}

/** Each piece of both texts once, in reading order: "same" in both, "hidden" (only in `a`) or "added" (only in `b`). */
function align(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const same = (piece) => ["same", piece];
  const middle = between(a.slice(start, a.length - end), b.slice(start, b.length - end));
  return [...a.slice(0, start).map(same), ...middle, ...a.slice(a.length - end).map(same)];
}

function between(a, b) {
  if (a.length * b.length > MAX_CELLS) return [...a.map((piece) => ["hidden", piece]), ...b.map((piece) => ["added", piece])];
  const width = b.length + 1;
  const common = new Uint16Array((a.length + 1) * width); // longest common subsequence of the rests
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const skip = Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
      common[i * width + j] = a[i] === b[j] ? common[(i + 1) * width + j + 1] + 1 : skip;
    }
  }
  const found = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push(["same", a[i++]]);
      j++;
    } else if (j === b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      found.push(["hidden", a[i++]]);
    } else {
      found.push(["added", b[j++]]);
    }
  }
  return found;
}
