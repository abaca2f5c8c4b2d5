// The page: one stream of events, one model, and the parts that draw it.
//
// - Events only change the model; what is seen is drawn once for each picture of the screen, however many
//   events came.
// - Something moves only while something is on its way; else the page waits for events.
// - The more followers, the less often a part is drawn, and a part that takes long is drawn less often still:
//   fifty followers and a thousand writes a second leave the page room to answer a click.

import { $, clock, el, setAttr, setText, show } from "./dom.js";
import { Histogram, Rate } from "./charts.js";
import { Controls } from "./controls.js";
import { FollowerPage } from "./follower.js";
import { Keys, compareReplicas } from "./keys.js";
import { Model, nameOf } from "./model.js";
import { Stream } from "./stream.js";
import { FLASH_MS, Topology } from "./topology.js";
import { Waterfall } from "./waterfall.js";

const THEMES = { auto: ", as the system has them", light: "", dark: "" };

const model = new Model();
const controls = new Controls(model);
const topology = new Topology($("topology"), $("topology-summary"), model, (link) => controls.toggleWire(link));
const waterfall = new Waterfall($("waterfall"), $("waterfall-detail"), $("waterfall-summary"), model);
const histogram = new Histogram($("histogram"), $("latency-summary"), model);
const rate = new Rate($("rate"), $("rate-now"), model);
const keys = new Keys($("keys"), $("keys-differ"), model);
const follower = new FollowerPage(model);

const WORK_SHARE = 0.06;

/** Draws a part, no more often than it can be afforded. */
class Part {
  constructor(part, msALink = 0) {
    this.part = part;
    this.msALink = msALink; // what the browser takes beyond the drawing itself grows with the links
    this.nextAt = 0;
    this.costMs = 0;
  }

  /** False: it is not its turn yet. */
  look(now) {
    if (now < this.nextAt) return false;
    this.part.draw();
    const tookMs = performance.now() - now;
    this.costMs = this.costMs * 0.7 + tookMs * 0.3;
    this.nextAt = now + Math.max(this.msALink * model.links.length, this.costMs > 2 ? this.costMs / WORK_SHARE : 0);
    return true;
  }
}

const leaderParts = [
  new Part(topology, 4),
  new Part(waterfall, 5),
  new Part(keys, 12),
  new Part(controls, 5),
  new Part(histogram, 5),
  new Part(rate, 5),
];
const followerParts = [new Part(follower), new Part(rate)];

let wanted = 0;
let dirty = false;
let later = 0;
let laterAt = 0;
let seeded = "";
let lostAt = null; // when the connection was lost

function look() {
  if (!wanted) wanted = requestAnimationFrame(draw);
}

/** Draw the state again, at the latest after so long. */
function lookLater(delayMs) {
  const at = performance.now() + delayMs;
  if (later && laterAt <= at) return;
  clearTimeout(later);
  laterAt = at;
  later = setTimeout(() => {
    later = 0;
    dirty = true;
    look();
  }, delayMs);
}

function draw() {
  wanted = 0;
  if (dirty) {
    dirty = false;
    drawNode();
    const parts = model.leader ? leaderParts : model.follower ? followerParts : [];
    const drawn = parts.map((part) => part.look(performance.now()));
    if (drawn.includes(false)) lookLater(60);
  }
  const moving = topology.animate();
  const growing = waterfall.animate();
  if (moving || growing) look();
}

function drawNode() {
  const { node } = model;
  const role = model.leader ? "leader" : model.follower ? "follower" : "waiting";
  setAttr(document.body, "data-role", role);
  setText($("node-id"), node.node_id);
  setText($("node-role"), node.role);
  setAttr($("node-role"), "data-role", node.role);
  setText($("node-epoch"), node.epoch);
  setText($("node-cluster"), node.cluster ?? "none yet");
  setText($("node-version"), node.software_version);
  const waits = node.waiting_for.join("; ");
  const ready = node.ready ? "ready" : `waits: ${waits}`;
  setText($("node-ready"), lostAt ? `not known; was: ${ready}` : ready);
  setAttr($("node-ready"), "data-ready", lostAt ? "unknown" : node.ready);
  setText($("waits-text"), waits || "…");
  const title = `${node.node_id} · trikv ${node.role}`;
  if (document.title !== title) document.title = title;
  drawNotice();
}

function drawNotice() {
  const deposed = model.leader && !model.leader.leads;
  const told = [
    ...(deposed ? ["Another leader has taken over: this node leads no more, and confirms nothing. "] : []),
    ...(lostAt ? [`This node does not answer: what is shown is as it was at ${clock(lostAt)}. `] : []),
  ].join("");
  const pages = lostAt ? otherPages() : [];
  const shown = `${told}${pages.map(({ href }) => href)}`;
  show($("notice"), Boolean(told));
  if ($("notice").dataset.shown === shown) return;
  setAttr($("notice"), "data-shown", shown);
  const links = pages.map(({ name, href }) => el("a", { href }, name));
  $("notice").replaceChildren(told, ...(links.length ? ["Other nodes:", ...links] : []));
}

/** The pages of the nodes that this one told of. */
function otherPages() {
  const followed = model.follower?.leader;
  const others = [...(followed ? [followed] : []), ...model.links];
  return others.map((one) => ({ name: nameOf(one), href: `${one.url}/ui` }));
}

function onState(told) {
  topologyFlashes(told);
  model.takeState(told);
  waterfall.forget();
  const about = `${told.node.cluster} ${told.node.epoch}`;
  if (told.leader && about !== seeded) {
    seeded = about;
    keys.seed().then(() => {
      dirty = true;
      look();
    });
  }
  dirty = true;
  look();
}

function onFrame(told) {
  topologyFlashes(told);
  model.takeFrame(told);
  dirty = true;
  look();
}

/** Which followers have acknowledged something since the last event. */
function topologyFlashes(told) {
  for (const write of told.writes) {
    const before = model.writes.get(write.id);
    write.followers.forEach(([, ack], index) => {
      if (ack === null || (before && before.followers[index]?.[1] !== null)) return;
      const link = told.leader?.links[index];
      if (!link) return;
      topology.flash(link.url);
      lookLater(FLASH_MS);
    });
  }
}

function onConnection(state, more) {
  const said = {
    connecting: "connecting",
    live: "connected",
    slow: `this page was too slow: ${more} pictures left out`,
    lost: `connection lost, trying again${more ? ` (${more})` : ""}`,
    asleep: "asleep while nobody looks",
  }[state];
  const shown = $("connection").dataset.state;
  if (state === "connecting" && shown === "lost") return; // lost until it is live again
  lostAt = state === "lost" ? lostAt ?? new Date() : null;
  if (model.node) {
    dirty = true;
    look();
  }
  setAttr($("connection"), "data-state", state);
  setText($("connection-text"), said);
  setAttr(document.body, "data-connection", state);
  waterfall.connect(state === "live" || state === "slow");
}

function chooseTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText($("theme"), theme);
  for (const name of ["aria-label", "title"]) setAttr($("theme"), name, `Colours: ${theme}${THEMES[theme]}`);
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf($("theme").textContent) + 1) % names.length];
  chooseTheme(next);
  try {
    localStorage.setItem("trikv-theme", next);
  } catch {
    // It holds for this page.
  }
});
$("hold").addEventListener("click", () => {
  const held = $("hold").getAttribute("aria-pressed") !== "true";
  setAttr($("hold"), "aria-pressed", held);
  setText($("hold"), held ? "go on" : "hold");
  waterfall.hold(held);
});
$("latency-reset").addEventListener("click", () => {
  model.forget();
  dirty = true;
  look();
});
$("compare").addEventListener("click", () => compareReplicas($("compare"), $("compared")));

chooseTheme(document.documentElement.dataset.theme ?? "auto");
const stream = new Stream("events", { onState, onFrame, onConnection });
stream.open();
