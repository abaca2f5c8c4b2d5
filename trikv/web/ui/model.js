// What the page knows: the last frame, the last writes, the newest keys, and what was counted.
//
// A replica has a version of a key if it acknowledged the write, or if its link's watermark has reached
// the version's time. An acknowledgement counts until the link has no watermark any more: then the follower
// may have lost its disk, and has to be brought in anew.

export const SHOWN_KEYS = 30;
const KEPT_WRITES = 60;
const RECENT_WRITES = 40; // as many the node follows; older ones it tells nothing more about
const RATE_SECONDS = 60;
const SEEN_WRITES = 2000;

export class Model {
  constructor() {
    this.node = null;
    this.leader = null;
    this.follower = null;
    this.atMs = 0;
    this.offsetMs = -Infinity;
    this.writes = new Map();
    this.keys = new Map();
    this.seconds = [];
    this.leftOut = 0;
    this.followerSeconds = [];
    this.forget();
  }

  get links() {
    return this.leader?.links ?? [];
  }

  /** The node's clock now, in ms. */
  now() {
    return performance.now() + this.offsetMs;
  }

  /** Begin to count anew. */
  forget() {
    this.histogram = null;
    this.sample = { about: "", count: 0, sumMs: 0 };
    this.seen = { asked: "", quorumMs: [] }; // latencies under one quorum and one lag
  }

  takeState(told) {
    this.writes.clear();
    this.offsetMs = -Infinity;
    this.#take(told);
  }

  takeFrame(told) {
    this.#take(told);
  }

  #take(told) {
    const instance = this.node && `${this.node.node_id} ${this.node.cluster}`;
    this.node = told.node;
    this.leader = told.leader;
    this.#countFollower(told);
    this.follower = told.follower;
    this.atMs = told.at_ms;
    this.offsetMs = Math.max(this.offsetMs - 0.2, told.at_ms - performance.now());
    if (instance && instance !== `${told.node.node_id} ${told.node.cluster}`) this.keys.clear();
    for (const link of this.links) {
      if (!link.watermark_us) {
        for (const key of this.keys.values()) key.acks.delete(link.url);
      }
    }
    for (const write of told.writes) this.#takeWrite(write);
    while (this.writes.size > KEPT_WRITES) this.writes.delete(Math.min(...this.writes.keys()));
    this.#count(told);
  }

  #takeWrite(write) {
    const before = this.writes.get(write.id);
    if (write.key.startsWith("\0")) write.key = "the configuration"; // the quorum, and who the members are
    write.at = versionTime(write.version);
    write.shownAt = before?.shownAt ?? performance.now();
    this.writes.set(write.id, write);
    if (write.outcome === "confirmed" && before?.outcome !== "confirmed") this.#sampleWrite(write);
    const name = write.operations === 1 ? write.key : `${write.key} … ${write.operations} keys`;
    this.noteKey(name, write.version, write.deleted);
    const key = this.keys.get(name);
    if (key?.version === write.version) {
      this.links.forEach((link, index) => {
        if ((write.followers[index]?.[1] ?? null) !== null) key.acks.add(link.url);
      });
    }
  }

  /** A version of a key: it is kept if it is newer than what is known, and among the newest keys. */
  noteKey(name, version, deleted) {
    const known = this.keys.get(name);
    if (known && compareVersions(version, known.version) <= 0) return;
    this.keys.delete(name);
    this.keys.set(name, { name, version, at: versionTime(version), deleted, acks: new Set() });
    while (this.keys.size > SHOWN_KEYS) {
      let oldest = null;
      for (const key of this.keys.values()) {
        if (!oldest || compareVersions(key.version, oldest.version) < 0) oldest = key;
      }
      this.keys.delete(oldest.name);
    }
  }

  /** Whether a replica has the newest version of a key. */
  has(key, link) {
    return key.acks.has(link.url) || (link.watermark_us ?? -1) >= key.at;
  }

  /** Whether the node still tells what becomes of a write. */
  isFollowed(write) {
    if (write.ended) return false;
    let newest = 0;
    for (const id of this.writes.keys()) newest = Math.max(newest, id);
    return write.id > newest - RECENT_WRITES;
  }

  /** The mean latency in theory: of the k-th smallest of n lags, if all are drawn alike. */
  theoryMs() {
    const theory = this.theory();
    return theory && theory.low + (theory.range * theory.k) / (theory.n + 1);
  }

  /** What theory knows: a write waits for the k-th smallest of n lags, uniform on a range. Null: they differ. */
  theory() {
    const { links, leader } = this;
    const live = links.filter((link) => link.state === "live");
    const quorum = leader?.write_quorum ?? 0;
    if (!quorum || live.length < quorum || live.length !== links.length) return null;
    const [first] = links;
    const alike = (link) =>
      link.min_delay_ms === first.min_delay_ms && link.max_delay_ms === first.max_delay_ms;
    if (!links.every(alike) || first.max_delay_ms === 0) return null;
    const range = first.max_delay_ms - first.min_delay_ms;
    return { k: quorum, n: links.length, low: first.min_delay_ms, range };
  }

  /** Writes that were answered per second, over the last whole seconds. */
  rate(over = 5) {
    const now = Math.floor(this.atMs / 1000);
    let sum = 0;
    for (const second of this.seconds) {
      if (second.at >= now - over && second.at < now) sum += second.confirmed + second.unconfirmed;
    }
    return sum / over;
  }

  #sampleWrite(write) {
    const { write_quorum: quorum } = this.leader;
    const about = `${quorum} ${this.links.map((l) => `${l.state} ${l.min_delay_ms} ${l.max_delay_ms}`)}`;
    if (about !== this.sample.about) this.sample = { about, count: 0, sumMs: 0 };
    this.sample.count += 1;
    this.sample.sumMs += write.quorum_ms ?? 0;
    const asked = `${quorum} ${this.links.map((l) => `${l.min_delay_ms} ${l.max_delay_ms}`)}`;
    if (asked !== this.seen.asked) this.seen = { asked, quorumMs: [] };
    this.seen.quorumMs.push(write.quorum_ms ?? 0);
    if (this.seen.quorumMs.length > SEEN_WRITES) this.seen.quorumMs.shift();
  }

  #count(told) {
    const { counts, histogram } = told;
    this.leftOut = told.writes_left_out ?? 0;
    if (histogram) {
      const length = histogram.bounds_ms.length + 1;
      this.histogram ??= {
        bounds: histogram.bounds_ms,
        commit: new Array(length).fill(0),
        quorum: new Array(length).fill(0),
      };
      for (const what of ["commit", "quorum"]) {
        histogram[what].forEach((more, index) => (this.histogram[what][index] += more));
      }
    }
    const at = Math.floor(told.at_ms / 1000);
    let last = this.seconds.at(-1);
    if (last?.at !== at) {
      last = { at, confirmed: 0, unconfirmed: 0, refused: 0 };
      this.seconds.push(last);
      while (this.seconds.length && this.seconds[0].at <= at - RATE_SECONDS) this.seconds.shift();
    }
    for (const what of ["confirmed", "unconfirmed", "refused"]) last[what] += counts?.[what] ?? 0;
  }

  #countFollower(told) {
    if (!told.follower) return;
    const more = told.follower.records - (this.follower?.records ?? told.follower.records);
    const at = Math.floor(told.at_ms / 1000);
    let last = this.followerSeconds.at(-1);
    if (last?.at !== at) {
      last = { at, confirmed: 0, unconfirmed: 0, refused: 0 };
      this.followerSeconds.push(last);
      if (this.followerSeconds.length > RATE_SECONDS) this.followerSeconds.shift();
    }
    last.confirmed += Math.max(0, more);
  }
}

/** A version's time, in µs: a version ends with it. */
export function versionTime(version) {
  return Number(version.slice(version.lastIndexOf("-") + 1));
}

/** Below, equal, above 0: by the epoch's number, then by time. */
export function compareVersions(one, other) {
  return parseInt(one, 10) - parseInt(other, 10) || versionTime(one) - versionTime(other);
}

/** A short name for a link's follower. */
export function nameOf(link) {
  return link.node_id ?? link.url.replace(/^https?:\/\//, "");
}
