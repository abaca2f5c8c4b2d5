// The last writes, each as it happened: a row with one lane for each follower, on one axis of time.
//
// - A lane shows the lag that was drawn (faint, known from the start), and the acknowledgement at its time:
//   dark up to the quorum, pale after it. A line across all lanes is the moment of the quorum.
// - A row grows while its write waits.
// - When writes come faster than an eye can follow, a row stays for a while before another takes its place;
//   once they come no more, the rows are the newest writes.
// - A row that is chosen, by pointer or keyboard, tells its follower's times in words below.

import { axisStep, count, el, mayMove, ms, niceAbove, onWidth, setAttr, setText, svg, tip } from "./dom.js";
import { nameOf } from "./model.js";

const ROWS = 12;
const STAY_MS = 1200;
const LEFT = 4;

export class Waterfall {
  constructor(place, detail, summary, model) {
    this.place = place;
    this.detail = detail;
    this.summary = summary;
    this.model = model;
    this.width = 0;
    this.rows = [];
    this.held = false;
    this.connected = true;
    this.chosen = null;
    this.axisMs = 10;
    this.list = el("ol", { class: "rows", "aria-label": "The last writes, the newest first" });
    this.axis = svg("svg", { class: "axis", height: 20, "aria-hidden": "true" });
    this.axisRow = el("div", { class: "axis-row" }, el("span"), this.axis, el("span"));
    this.empty = el("p", { class: "empty" }, "No write yet. Write a key, or run a burst: it is drawn here as it happens.");
    place.append(this.empty, this.axisRow, this.list);
    onWidth(this.axis, (width) => {
      this.width = width;
      this.rows.forEach((row) => (row.dirty = true));
      this.draw();
    });
    this.list.addEventListener("keydown", (event) => this.#move(event));
  }

  /** The model has forgotten its writes: a new connection. */
  forget() {
    for (const row of this.rows) row.old = true;
  }

  /** Nothing is heard of what is pending while there is no connection. */
  connect(connected) {
    if (connected === this.connected) return;
    this.connected = connected;
    this.draw();
  }

  hold(held) {
    this.held = held;
    if (!held) this.draw();
  }

  draw() {
    if (!this.held) this.#choose();
    const [first] = this.rows;
    this.empty.hidden = Boolean(first);
    this.axisRow.hidden = !first;
    this.#scale();
    for (const row of this.rows) this.#drawRow(row);
    this.#drawDetail();
    const rate = this.model.rate();
    setText(this.summary, rate > ROWS ? `a sample of ${Math.round(rate)} writes/s` : "newest first");
  }

  /** Let what is pending grow. False: nothing is. */
  animate() {
    const growing = this.rows.filter((row) => row.growing);
    if (!growing.length || !mayMove()) return false;
    for (const row of growing) this.#grow(row);
    return true;
  }

  /** Bring the rows towards the newest writes. At rest they are these. */
  #choose() {
    const now = performance.now();
    const writes = [...this.model.writes.values()].sort((one, other) => other.id - one.id);
    for (const row of this.rows) this.#refresh(row, writes);
    const newest = writes.slice(0, ROWS);
    const wanted = new Set(newest.map((write) => write.id));
    const shown = new Set(this.rows.filter((row) => !row.old).map((row) => row.write.id));
    for (const write of newest) {
      if (shown.has(write.id)) continue;
      const row = this.#free(wanted, now);
      if (!row) break; // the next frame finds one that has stayed long enough
      this.#add(row, write, now);
    }
  }

  /** What is known of a row's write by now. After a new connection it may have another number. */
  #refresh(row, writes) {
    const { id, version } = row.write;
    const news = row.old ? writes.find((write) => write.version === version) : this.model.writes.get(id);
    if (!news || news === row.write) return;
    Object.assign(row, { write: news, old: false, dirty: true });
  }

  /** A row for another write: a new one, or the oldest that has stayed long enough. Undefined: none. */
  #free(wanted, now) {
    if (this.rows.length < ROWS) return this.#build();
    const index = this.rows.findLastIndex((row) => row.element !== document.activeElement
      && (row.old || (!wanted.has(row.write.id) && now - row.since >= STAY_MS)));
    return index < 0 ? undefined : this.rows.splice(index, 1)[0];
  }

  #add(row, write, now) {
    Object.assign(row, { write, since: now, dirty: true, old: false });
    const below = this.rows.findIndex((other) => other.old || other.write.id < write.id);
    const index = below < 0 ? this.rows.length : below;
    this.list.insertBefore(row.element, this.rows[index]?.element ?? null);
    this.rows.splice(index, 0, row);
    const following = this.list.querySelector("[tabindex='0']");
    if (!following) row.element.tabIndex = 0;
  }

  #build() {
    const parts = {
      key: el("span", { class: "key-name" }),
      outcome: el("span", { class: "outcome" }),
      times: el("span", { class: "times" }),
      wait: svg("rect", { class: "wait", x: LEFT }),
      lags: svg("path", { class: "lags" }),
      late: svg("path", { class: "late" }),
      acks: svg("path", { class: "acks" }),
      commit: svg("path", { class: "commit" }),
      quorum: svg("path", { class: "quorum" }),
      now: svg("path", { class: "now" }),
    };
    const { wait, lags, late, acks, commit, quorum, now } = parts;
    parts.track = svg("svg", { class: "track", "aria-hidden": "true" }, wait, lags, late, acks, commit, quorum, now);
    parts.element = el("li", { class: "write", tabindex: "-1" },
      el("span", { class: "label" }, parts.key, parts.outcome), parts.track, parts.times);
    const row = { ...parts };
    parts.element.addEventListener("focus", () => this.#select(row));
    parts.element.addEventListener("pointerenter", () => this.#select(row));
    parts.track.addEventListener("pointermove", (event) => this.#hint(row, event));
    parts.track.addEventListener("pointerleave", () => tip(""));
    return row;
  }

  #select(row) {
    this.chosen = row;
    for (const other of this.rows) other.element.classList.toggle("chosen", other === row);
    this.#drawDetail();
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -ROWS, End: ROWS }[event.key];
    const at = this.rows.findIndex((row) => row.element === document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const aim = this.rows[Math.max(0, Math.min(this.rows.length - 1, at + step))];
    this.rows.forEach((row) => (row.element.tabIndex = row === aim ? 0 : -1));
    aim.element.focus();
  }

  #scale() {
    let most = 5;
    const now = this.model.now();
    for (const row of this.rows) {
      const { write } = row;
      for (const [lag, ack] of write.followers) {
        if (ack !== null) most = Math.max(most, ack);
        else if (lag !== null && this.#isOpen(row)) most = Math.max(most, lag);
      }
      most = Math.max(most, write.quorum_ms ?? write.commit_ms ?? 0);
      if (write.outcome === "pending" && this.#isOpen(row)) most = Math.max(most, now - write.began_ms);
    }
    const axisMs = niceAbove(most * 1.04);
    if (axisMs === this.axisMs && this.axisWidth === this.width) return;
    this.axisMs = axisMs;
    this.axisWidth = this.width;
    this.rows.forEach((row) => (row.dirty = true));
    this.#drawAxis();
  }

  #drawAxis() {
    const marks = [];
    const step = axisStep(this.axisMs, this.width);
    for (let at = 0; at <= this.axisMs * 1.0001; at += step) {
      const x = this.#x(at);
      const anchor = at === 0 ? "start" : x > this.width - 30 ? "end" : "middle";
      marks.push(svg("text", { x: at === 0 ? 0 : x, y: 12, "text-anchor": anchor },
        at === 0 ? "0" : this.axisMs >= 3000 ? `${+(at / 1000).toFixed(1)} s` : `${count(+at.toFixed(1))} ms`));
      marks.push(svg("path", { d: `M${x} 16v4` }));
    }
    setAttr(this.axis, "width", "100%");
    this.axis.replaceChildren(...marks);
    this.list.style.setProperty("--step", `${((this.width - 2 * LEFT) * step) / this.axisMs}px`);
  }

  #x(atMs) {
    const share = Math.min(1, Math.max(0, atMs / this.axisMs));
    return +(LEFT + share * (this.width - 2 * LEFT)).toFixed(1);
  }

  #isOpen(row) {
    return this.connected && !row.old && this.model.isFollowed(row.write);
  }

  #drawRow(row) {
    const open = this.#isOpen(row);
    if (!row.dirty && !row.growing && row.wasOpen === open) return;
    row.dirty = false;
    row.wasOpen = open;
    const { write } = row;
    const n = write.followers.length;
    const pitch = n <= 8 ? 6 : 34 / n;
    const height = Math.max(14, Math.round(n * pitch + 8));
    row.height = height;
    setAttr(row.track, "height", height);
    setAttr(row.wait, "height", height - 4);
    setAttr(row.wait, "y", 2);
    const lags = [];
    const acks = [];
    const late = [];
    write.followers.forEach(([lag, ack], index) => {
      const y = +(4 + (index + 0.5) * pitch).toFixed(1);
      const due = open && ["live", "syncing"].includes(this.model.links[index]?.state);
      if (lag !== null && lag > 0 && (ack !== null || due)) {
        const x = this.#x(lag);
        lags.push(n <= 8 ? `M${LEFT} ${y}H${x}` : `M${x} ${y}h2`);
      }
      if (ack === null) return;
      const isLate = write.quorum_ms !== null && ack > write.quorum_ms + 0.0005;
      (isLate ? late : acks).push(`M${this.#x(ack)} ${(y - Math.max(1.2, pitch / 2 - 0.4)).toFixed(1)}v${Math.max(2.4, pitch - 0.8).toFixed(1)}`);
    });
    setAttr(row.lags, "d", lags.join(""));
    setAttr(row.acks, "d", acks.join(""));
    setAttr(row.late, "d", late.join(""));
    setAttr(row.commit, "d", write.commit_ms === null ? "" : `M${this.#x(write.commit_ms)} 1v${height - 2}`);
    const { quorum_ms: quorumMs } = write;
    setAttr(row.quorum, "d", quorumMs === null ? "" : flag(this.#x(quorumMs), height));
    const outcome = write.outcome === "pending" && !open ? "unknown" : write.outcome;
    setAttr(row.element, "data-outcome", outcome);
    setText(row.key, `${write.deleted ? "delete " : ""}${write.key}${write.operations > 1 ? ` … ${write.operations}` : ""}`);
    row.growing = open && write.outcome === "pending";
    const acknowledged = write.followers.filter(([, ack]) => ack !== null).length;
    setText(row.outcome, {
      pending: `waits, ${acknowledged} of ${n}`,
      confirmed: `confirmed, ${acknowledged} of ${n}`,
      unconfirmed: `not confirmed, ${acknowledged} of ${n}`,
      unknown: "not followed to its end",
    }[outcome]);
    if (!row.growing) {
      setText(row.times, quorumMs === null ? "–" : `${ms(quorumMs)} ms`);
      setAttr(row.wait, "width", Math.max(0, this.#x(quorumMs ?? lastAck(write)) - LEFT));
      setAttr(row.now, "d", "");
    } else {
      this.#grow(row);
    }
    setAttr(row.element, "aria-label", this.#inWords(row, outcome, acknowledged));
  }

  #grow(row) {
    const elapsed = Math.max(0, this.model.now() - row.write.began_ms);
    const x = this.#x(elapsed);
    setAttr(row.wait, "width", Math.max(0, x - LEFT));
    setAttr(row.now, "d", `M${x} 1v${row.height - 2}`);
    setText(row.times, `${count(Math.round(elapsed / 10) * 10)} ms`);
  }

  #inWords(row, outcome, acknowledged) {
    const { write } = row;
    const said = { pending: "waits for its quorum", confirmed: `confirmed after ${ms(write.quorum_ms)} ms`, unconfirmed: "not confirmed", unknown: "not followed to its end" }[outcome];
    return `${write.deleted ? "delete" : "write"} ${write.key}: committed after ${ms(write.commit_ms)} ms, ${said}, ${acknowledged} of ${write.followers.length} acknowledged`;
  }

  #hint(row, event) {
    const box = row.track.getBoundingClientRect();
    const x = event.clientX - box.left;
    let best = null;
    let distance = 14;
    row.write.followers.forEach(([, ack], index) => {
      if (ack === null) return;
      const off = Math.abs(this.#x(ack) - x);
      if (off < distance) [best, distance] = [index, off];
    });
    if (best === null) return tip("");
    const [lag, ack] = row.write.followers[best];
    tip(`${this.#name(best)}: acknowledged after ${ms(ack)} ms (lag ${ms(lag)} ms)`, event.clientX, event.clientY);
  }

  #name(index) {
    const link = this.model.links[index];
    return link ? nameOf(link) : `follower ${index + 1}`;
  }

  #drawDetail() {
    const row = this.rows.includes(this.chosen) ? this.chosen : this.rows[0];
    if (!row) return;
    const { write } = row;
    const open = this.#isOpen(row);
    const states = write.followers.map((_, index) => this.model.links[index]?.state ?? "unknown");
    const key = `${write.id} ${row.old} ${open} ${write.outcome} ${states} ${write.followers.map(([, ack]) => ack)}`;
    if (key === this.detailKey) return;
    this.detailKey = key;
    const order = write.followers.map(([lag, ack], index) => ({ lag, ack, name: this.#name(index), state: states[index] }));
    order.sort((one, other) => (one.ack ?? Infinity) - (other.ack ?? Infinity));
    const chips = order.slice(0, 12).map(({ lag, ack, name, state }) => {
      const late = ack !== null && write.quorum_ms !== null && ack > write.quorum_ms + 0.0005;
      const kind = ack === null ? "missing" : late ? "late" : "ack";
      return el("li", { class: `chip ${kind}` }, el("b", {}, name),
        ack === null ? ` ${missing(write, lag, state, row.old)}` : ` ${ms(ack)} ms${late ? ", late" : ""}`);
    });
    if (order.length > 12) chips.push(el("li", { class: "chip more" }, `and ${order.length - 12} more`));
    const told = el("p", {}, el("b", {}, write.key), ` committed ${ms(write.commit_ms)} ms · `,
      write.quorum_ms === null ? unmet(write, open) : `quorum ${ms(write.quorum_ms)} ms`,
      el("span", { class: "version" }, ` ${write.version}`));
    this.detail.replaceChildren(told, el("ul", { class: "chips" }, ...chips));
  }
}

/** Why a follower has not acknowledged a write. */
function missing(write, lag, state, old) {
  if (lag === null) return "was not live";
  if (old) return "not followed to its end";
  const away = { cut: "is cut off", down: "is down", connecting: "is not live", syncing: "is catching up" }[state];
  if (away) return away;
  return write.ended ? "was sent it later" : `due after ${ms(lag)} ms`;
}

/** What became of a write whose quorum was not reached. */
function unmet(write, open) {
  if (write.outcome === "unconfirmed") return "not confirmed: its caller was told so (503)";
  return open ? "waits for its quorum" : "not followed to its end: the connection to the node was lost";
}

function lastAck(write) {
  return Math.max(0, ...write.followers.map(([, ack]) => ack ?? 0));
}

function flag(x, height) {
  return `M${x} 0v${height}M${x} 0l5 3.5l-5 3.5z`;
}
