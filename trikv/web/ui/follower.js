// The page of a follower: whom it follows, how far it is, and reads that may be stale.

import { $, clock, count, el, onWidth, setAttr, setText, span, svg } from "./dom.js";
import { ask, keyPath, saying } from "./api.js";
import { complain, report } from "./controls.js";

const WIRE_LABEL_PX = 140;

export class FollowerPage {
  constructor(model) {
    this.model = model;
    this.facts = new Map();
    onWidth($("follower-picture"), (width) => {
      this.#build(width);
      this.draw();
    });
    $("read-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#read();
    });
    for (const id of ["read-key", "read-version"]) {
      $(id).addEventListener("input", () => complain($(id), $("read-problem"), ""));
    }
  }

  draw() {
    const { node, follower } = this.model;
    if (!follower || !this.picture) return;
    const { leader, leader_heard_ms: heard } = follower;
    const state = leader === null ? "down" : heard === null || heard > 5000 ? "down" : heard > 3000 ? "connecting" : "live";
    setAttr(this.wire, "data-state", state);
    setAttr(this.link, "href", leader ? `${leader.url}/ui` : "#");
    setText(this.leaderName, leader?.node_id ?? "no leader heard of");
    setText(this.leaderNote, leader ? leader.url.replace(/^https?:\/\//, "") : "since this node started");
    setText(this.ownName, node.node_id);
    setText(this.ownNote, node.url ? node.url.replace(/^https?:\/\//, "") : "");
    setText(this.label, heard === null ? "not heard yet" : `heard ${since(heard)} ago`);
    setText($("follower-title"), leader ? `This node follows ${leader.node_id}` : "This node follows nobody yet");
    this.#fact("leader heard", heard === null ? "not yet" : `${since(heard)} ago`);
    this.#fact("records merged since its start", count(follower.records));
    this.#fact("batches and heartbeats", count(follower.batches));
    this.#fact("has everything up to", watermark(follower));
    this.#fact("watermark", follower.watermark);
    this.#fact("brought in, in epoch", follower.established);
    this.#fact("epoch promised", node.epoch);
    this.#fact("the leader's page", "", leader ? `${leader.url}/ui` : "");
  }

  #fact(name, text, href = null) {
    let place = this.facts.get(name);
    if (!place) {
      place = el("dd");
      this.facts.set(name, place);
      $("follower-facts").append(el("div", {}, el("dt", {}, name), place));
    }
    if (href === null) return setText(place, text);
    if (place.firstChild?.getAttribute?.("href") === href) return undefined;
    return place.replaceChildren(href ? el("a", { href, id: "leader-page" }, href.replace(/^https?:\/\//, "")) : "not known");
  }

  #build(width) {
    const each = Math.min(190, (width - 60) / 2);
    const right = width - each - 4;
    const narrow = right - each < WIRE_LABEL_PX; // then its label has no room between the two
    const top = narrow ? 28 : 14;
    const node = (x, kind) => {
      const name = svg("text", { class: "name", x: x + each / 2, y: top + 28 });
      const note = svg("text", { class: "note", x: x + each / 2, y: top + 47 });
      return [svg("g", { class: kind }, svg("rect", { x, y: top, width: each, height: 62, rx: 10 }), name, note), name, note];
    };
    const [leader, leaderName, leaderNote] = node(4, "hub-card");
    const [own, ownName, ownNote] = node(right, "card-of own");
    this.link = svg("a", {}, leader);
    const middle = (each + 4 + right) / 2;
    this.label = svg("text", { class: "wire-label", x: middle, y: narrow ? 16 : top + 22 });
    this.wire = svg("g", { class: "wire", "data-load": "light" },
      svg("path", { class: "stroke", d: `M${each + 4} ${top + 31}H${right}` }), this.label);
    Object.assign(this, { leaderName, leaderNote, ownName, ownNote });
    this.picture = svg("svg", { class: "topology-svg", width, height: top + 76, role: "group", "aria-label": "This node and its leader" }, this.wire, this.link, own);
    $("follower-picture").replaceChildren(this.picture);
  }

  async #read() {
    const key = $("read-key");
    const version = $("read-version").value.trim();
    const problem = $("read-problem");
    let path;
    try {
      path = keyPath(key.value);
    } catch (error) {
      return complain(key, problem, error.message);
    }
    complain(key, problem, "");
    complain($("read-version"), problem, "");
    if (version) path += `?min_version=${encodeURIComponent(version)}`;
    const began = performance.now();
    const took = () => `after ${count(Math.round(performance.now() - began))} ms`;
    const line = report("waiting", `${key.value} …`, version ? "waits until this node has caught up" : "", null, $("reads"));
    try {
      const told = await ask("GET", path);
      return report("done", `${told.key} = ${JSON.stringify(told.value)}`, `version ${told.version}, ${took()}${version ? "" : "; it may be stale"}`, line, $("reads"));
    } catch (error) {
      if (error.code === "invalid_parameter") complain($("read-version"), problem, error.message);
      const kind = error.code === "not_found" ? "unconfirmed" : "failed";
      return report(kind, `${key.value}: ${error.code === "not_found" ? "not here" : "no answer"}`, `${saying(error)}, ${took()}`, line, $("reads"));
    }
  }
}

function since(heardMs) {
  return heardMs < 1000 ? `${heardMs} ms` : span(heardMs);
}

function watermark(follower) {
  if (!follower.watermark_us) return "nothing yet";
  const at = new Date(follower.watermark_us / 1000);
  return `${clock(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}
