// The live picture: the leader, its followers, the wire to each, and what travels on it.
//
// - A wire tells its state by its colour, by its stroke, and in words.
// - A write on its way is a dot: it leaves when the write is committed and arrives when its lag is over, as
//   the simulated network has it. Beyond DOTS_A_WIRE, a wire is drawn thick, with the number on it.
// - A few followers are drawn as a fan, many as rows in columns beside trunks: there the wires are too short
//   for dots, and a card tells the number.

import { count, mayMove, onWidth, range, setAttr, setText, span, svg, tip } from "./dom.js";
import { nameOf } from "./model.js";

const FAN_FOLLOWERS = 8;
const FAN_WIDTH = 600;
const DOTS_A_WIRE = 8;
const DOTS = 150;
export const FLASH_MS = 450;

export class Topology {
  constructor(place, summary, model, onWire) {
    this.place = place;
    this.summary = summary;
    this.model = model;
    this.onWire = onWire;
    this.width = 0;
    this.shape = "";
    this.wires = [];
    this.flashed = new Map();
    onWidth(place, (width) => {
      this.width = width;
      this.draw();
    });
  }

  /** Draw the state. Dots are drawn by `animate`. */
  draw() {
    const { leader, links } = this.model;
    if (!this.width || !leader) return;
    const shape = `${this.width} ${links.map((link) => link.url).join(" ")}`;
    if (shape !== this.shape) {
      this.shape = shape;
      this.#build(links);
    }
    this.#drawLeader();
    links.forEach((link, index) => this.#drawWire(this.wires[index], link));
    const live = links.filter((link) => link.state === "live").length;
    const flying = leader.inflight_writes;
    setText(
      this.summary,
      `${live} of ${links.length} wires live · ${count(flying)} ${flying === 1 ? "write waits" : "writes wait"} for the quorum`,
    );
  }

  #build(links) {
    const fan = links.length <= FAN_FOLLOWERS && this.width >= FAN_WIDTH;
    const plan = fan ? planFan(this.width, links.length) : planRows(this.width, links.length);
    const dots = svg("g", { class: "dots" });
    this.picture = svg("svg", {
      class: `topology-svg ${fan ? "fan" : "rows"}`,
      width: this.width,
      height: plan.height,
      viewBox: `0 0 ${this.width} ${plan.height}`,
      role: "group",
      "aria-label": "The leader and its followers",
    });
    for (const trunk of plan.trunks) this.picture.append(svg("path", { class: "trunk", d: trunk }));
    this.wires = links.map((link, index) => this.#buildWire(link, index, plan.wires[index], plan.compact));
    this.picture.append(...this.wires.map((wire) => wire.line));
    this.hub = buildHub(plan.hub);
    this.picture.append(this.hub.group, ...this.wires.map((wire) => wire.card), dots);
    this.dots = dots;
    this.pool = [];
    this.place.replaceChildren(this.picture);
  }

  #buildWire(link, index, at, compact) {
    const path = `M${at.x1} ${at.y1}C${at.cx1} ${at.y1} ${at.cx2} ${at.y2} ${at.x2} ${at.y2}`;
    const [midX, midY] = pointOn(at, 0.5);
    const stroke = svg("path", { class: "stroke", d: path, fill: "none" });
    const grip = svg("path", { class: "grip", d: path, fill: "none" });
    const gap = svg("g", { class: "gap", transform: `translate(${midX} ${midY})` },
      svg("rect", { x: -9, y: -8, width: 18, height: 16 }),
      svg("path", { d: "M-7 6 -2 -6M2 6 7 -6" }));
    const [labelX, labelY] = pointOn(at, at.labelAt);
    const label = svg("text", { class: "wire-label", x: labelX, y: labelY + (at.y2 > at.y1 + 5 ? 17 : -8) });
    const load = svg("g", { class: "load", transform: `translate(${midX} ${midY})` },
      svg("rect", { x: -21, y: -9, width: 42, height: 18, rx: 9 }),
      svg("text", { x: 0, y: 4 }));
    const line = svg("g", { class: "wire" }, stroke, grip, gap, label, ...(compact ? [] : [load]));
    grip.addEventListener("click", () => this.onWire(this.model.links[index]));
    grip.addEventListener("pointermove", (event) => {
      const now = this.model.links[index];
      const act = now.state === "cut" ? "press to heal" : "press to cut";
      tip(`${nameOf(now)}: ${now.reason ?? now.state}. ${act}`, event.clientX, event.clientY);
    });
    grip.addEventListener("pointerleave", () => tip(""));
    return { at, line, stroke, gap, label, load, compact, ...buildCard(at, compact) };
  }

  #drawLeader() {
    const { node, leader } = this.model;
    setText(this.hub.name, node.node_id);
    const { write_quorum: quorum, pending_write_quorum: pending } = leader;
    const more = pending === null ? "" : `, ${pending} pending`;
    setText(this.hub.note, leader.leads ? `quorum ${quorum}${more}` : "leads no more");
  }

  #drawWire(wire, link) {
    const { line, card, label } = wire;
    setAttr(line, "data-state", link.state);
    setAttr(card, "data-state", link.state);
    const dense = wire.compact || link.outbox_records > DOTS_A_WIRE || !mayMove();
    setAttr(line, "data-load", dense && link.outbox_records ? "heavy" : "light");
    setText(wire.load.lastChild, wire.compact ? "" : count(link.outbox_records));
    setText(wire.name, nameOf(link));
    setText(wire.state, link.state);
    const behind = behindOf(link);
    setAttr(card, "data-behind", Boolean(behind));
    setText(wire.note, wire.compact ? shortBehindOf(link) : behind || "nothing on its way");
    setText(label, wire.compact ? "" : range(link.min_delay_ms, link.max_delay_ms));
    wire.title.textContent = [
      nameOf(link),
      link.state + (link.reason ? ` (${link.reason})` : ""),
      `lag ${range(link.min_delay_ms, link.max_delay_ms)}`,
      behind || "nothing on its way",
      `${link.rate_records_s.toFixed(1)} records/s`,
    ].join("\n");
    const flashed = !dense && performance.now() - (this.flashed.get(link.url) ?? -FLASH_MS) < FLASH_MS;
    setAttr(card, "data-flash", flashed);
  }

  /** Place the dots for this moment. False: nothing moves. */
  animate() {
    const { model } = this;
    if (!this.picture || !model.leader) return false;
    const now = model.now();
    let used = 0;
    let moving = false;
    if (mayMove()) {
      const links = model.links;
      for (const write of model.writes.values()) {
        if (!model.isFollowed(write) || write.commit_ms === null) continue;
        const elapsed = now - write.began_ms - write.commit_ms;
        write.followers.forEach(([lag, ack], index) => {
          const link = links[index];
          if (!link || link.state !== "live" || ack !== null || lag === null) return;
          if (this.wires[index].compact || link.outbox_records > DOTS_A_WIRE || used >= DOTS) return;
          const share = lag > 0 ? Math.min(1, Math.max(0, elapsed / lag)) : 1;
          const [x, y] = pointOn(this.wires[index].at, share);
          const dot = this.#dot(used++);
          dot.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
          moving ||= share < 1;
        });
      }
    }
    for (let index = used; index < this.pool.length; index += 1) setAttr(this.pool[index], "visibility", "hidden");
    return moving;
  }

  #dot(index) {
    if (!this.pool[index]) {
      this.pool[index] = svg("circle", { r: 4.5 });
      this.dots.append(this.pool[index]);
    }
    setAttr(this.pool[index], "visibility", "visible");
    return this.pool[index];
  }

  /** A follower acknowledged: its card lights up for a moment. */
  flash(url) {
    this.flashed.set(url, performance.now());
  }
}

function buildHub({ x, y, width, height }) {
  const name = svg("text", { class: "name", x: x + width / 2, y: y + height / 2 - 3 });
  const note = svg("text", { class: "note", x: x + width / 2, y: y + height / 2 + 15 });
  const box = svg("rect", { x, y, width, height, rx: 10 });
  return { group: svg("g", { class: "hub-card" }, box, name, note), name, note };
}

function buildCard(at, compact) {
  const { x2: x, y2: y, cardWidth: width, cardHeight: height } = at;
  const top = y - height / 2;
  const title = svg("title");
  const box = svg("rect", { x, y: top, width, height, rx: compact ? 5 : 9 });
  const bar = svg("rect", { class: "bar", x, y: top, width: compact ? 4 : 5, height, rx: 2 });
  const name = svg("text", { class: "name", x: x + (compact ? 11 : 14), y: compact ? y + 4 : y - 4 });
  const state = svg("text", { class: "state", x: x + width - 10, y: compact ? y + 4 : y - 4 });
  const note = svg("text", { class: "note", x: compact ? x + width - 7 : x + 14, y: compact ? y + 4 : y + 14 });
  const card = svg("g", { class: `card-of ${compact ? "compact" : ""}` }, title, box, bar, name, state, note);
  return { card, title, name, state, note };
}

function planFan(width, n) {
  const rowHeight = 62;
  const height = Math.max(150, n * rowHeight + 10);
  const hub = { x: 4, y: height / 2 - 32, width: 150, height: 64 };
  const cardWidth = Math.min(250, Math.max(190, width * 0.29));
  const x1 = hub.x + hub.width;
  const x2 = width - cardWidth - 4;
  const wires = Array.from({ length: n }, (_, index) => {
    const y2 = (height * (index + 0.5)) / n;
    return {
      x1, y1: height / 2 + (index - (n - 1) / 2) * Math.min(9, 48 / n), x2, y2,
      cx1: x1 + (x2 - x1) * 0.5, cx2: x1 + (x2 - x1) * 0.42, cardWidth, cardHeight: 48, labelAt: 0.8,
    };
  });
  return { height, hub, wires, trunks: [], compact: false };
}

function planRows(width, n) {
  const compact = n > FAN_FOLLOWERS;
  const rowHeight = compact ? 31 : 60;
  const least = compact ? (width < FAN_WIDTH ? 165 : 196) : 320;
  const columns = Math.max(1, Math.min(Math.floor(width / least), Math.ceil(n / 4), compact ? 6 : 1));
  const perColumn = Math.ceil(n / columns);
  const columnWidth = width / columns;
  const hub = { x: 4, y: 4, width: Math.min(200, width - 8), height: 52 };
  const top = hub.y + hub.height + 22;
  const wireLength = compact ? 30 : Math.min(110, columnWidth * 0.3);
  const wires = Array.from({ length: n }, (_, index) => {
    const column = Math.floor(index / perColumn);
    const x1 = column * columnWidth + 16;
    const y = top + (index % perColumn) * rowHeight + rowHeight / 2;
    const x2 = x1 + wireLength;
    return {
      x1, y1: y, x2, y2: y, cx1: x1 + wireLength / 3, cx2: x2 - wireLength / 3,
      cardWidth: columnWidth - wireLength - 24, cardHeight: compact ? 25 : 48, labelAt: 0.48,
    };
  });
  const bus = hub.y + hub.height + 10;
  const trunks = [`M16 ${hub.y + hub.height}V${bus}H${(columns - 1) * columnWidth + 16}`];
  for (let column = 0; column < columns; column += 1) {
    const last = wires[Math.min(n, (column + 1) * perColumn) - 1];
    if (last) trunks.push(`M${column * columnWidth + 16} ${bus}V${last.y1}`);
  }
  return { height: top + perColumn * rowHeight + 4, hub, wires, trunks, compact };
}

/** A point on a wire, by how much of it lies behind. */
function pointOn({ x1, y1, cx1, cx2, x2, y2 }, share) {
  const rest = 1 - share;
  const [a, b, c, d] = [rest ** 3, 3 * rest ** 2 * share, 3 * rest * share ** 2, share ** 3];
  return [a * x1 + b * cx1 + c * cx2 + d * x2, a * y1 + b * y1 + c * y2 + d * y2];
}

function behindOf(link) {
  const parts = [];
  if (link.outbox_records) parts.push(`${count(link.outbox_records)} on the way`);
  if (link.lag_ms > 0.5) parts.push(link.state === "live" ? `oldest ${span(link.lag_ms)}` : `away for ${span(link.lag_ms)}`);
  return parts.join(" · ");
}

function shortBehindOf(link) {
  if (link.state !== "live") return link.state;
  return link.outbox_records ? count(link.outbox_records) : "";
}
