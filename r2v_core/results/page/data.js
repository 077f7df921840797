// The episodes: an index of all of them, unpacked at the start, and their steps, unpacked shard by shard on demand.

const SHARDS_KEPT = 6;

/** A data block of this page: base64 of gzipped JSON. */
async function unpack(id) {
  const packed = atob(byId(id).textContent.trim());
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** All episodes of the experiment; an episode is named by its row in the index. */
class Store {
  constructor(index) {
    this.columns = index;
    this.count = index.method.length;
    this.shards = new Map();
    this.pairs = new Map(); // situation → method → row
    this.rows = new Map(); // name in the address → row
    for (let row = 0; row < this.count; row++) {
      const situation = this.situation(row);
      if (!this.pairs.has(situation)) this.pairs.set(situation, new Map());
      this.pairs.get(situation).set(index.method[row], row);
      this.rows.set(this.name(row), row);
    }
  }

  /** What paired episodes have in common: the same task under the same noise. */
  situation(row) {
    const { condition, seed, z, replicate, task_id: task } = this.columns;
    return JSON.stringify([condition[row], seed[row], z[row], replicate[row], task[row]]);
  }

  /** An episode's name in the page's address. */
  name(row) {
    const { method, condition, seed, z, replicate, task_id: task } = this.columns;
    return [method[row], condition[row], seed[row], z[row], task[row], ...(replicate[row] ? [replicate[row]] : [])].join("~");
  }

  /** The row of another method on the same task under the same noise, undefined where it wasn't played. */
  partner(row, method) {
    return this.pairs.get(this.situation(row)).get(method);
  }

  /** The methods that played this row's task under the same noise. */
  methodsBeside(row) {
    return [...this.pairs.get(this.situation(row)).keys()];
  }

  /** One value of the index. */
  value(column, row) {
    return this.columns[column][row];
  }

  /** The different values of a column, in the order of the index. */
  distinct(column) {
    return [...new Set(this.columns[column])];
  }

  /** An episode with its steps, texts in place. */
  async episode(row) {
    const shard = await this.shard(this.columns.shard[row]);
    const packed = shard.episodes[row];
    const text = (at) => shard.texts[at];
    return { ...packed, goal: text(packed.goal), steps: packed.steps.map((step, index) => readStep(step, index, text)) };
  }

  shard(number) {
    const kept = this.shards.get(number) ?? unpack(`shard-${number}`);
    this.shards.delete(number);
    this.shards.set(number, kept); // now the newest
    if (this.shards.size > SHARDS_KEPT) this.shards.delete(this.shards.keys().next().value);
    return kept;
  }
}

function readStep(packed, index, text) {
  const observation = (parts) => (parts ? { feedback: text(parts[0]), state: text(parts[1]) } : null);
  const step = { progress: null, remaining: null, decision: null, ...packed, index };
  step.seen = observation(packed.seen);
  step.clean = observation(packed.clean);
  step.action = text(packed.action);
  step.expert = packed.expert === undefined ? null : text(packed.expert);
  if (step.decision) {
    const candidates = step.decision.candidates.map((one) => ({ ...one, text: text(one.text) }));
    step.decision = { ...step.decision, candidates };
  }
  return step;
}
