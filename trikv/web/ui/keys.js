// The newest keys, and which replica has their newest version: "=" has it, "…" is on its way, "≠" goes nowhere:
// its wire is cut or down.

import { $, clock, count, el, onWidth, setAttr, setText, show } from "./dom.js";
import { ask, saying } from "./api.js";
import { SHOWN_KEYS, compareVersions, nameOf } from "./model.js";

const SIGNS = { same: "=", coming: "…", differs: "≠" };
const MANY = 10;
const CHARACTER_PX = 7;
const REPLICAS_SHARE = 0.68; // of the table's width, beside the keys

export class Keys {
  constructor(place, heading, model) {
    this.place = place;
    this.heading = heading;
    this.model = model;
    this.shape = "";
    this.rows = [];
    this.width = 0;
    onWidth(place, (width) => {
      this.width = width;
      this.#turnHeads();
    });
  }

  draw() {
    const { links } = this.model;
    const keys = [...this.model.keys.values()].sort((one, other) => compareVersions(other.version, one.version));
    const shape = links.map((link) => `${link.url} ${link.node_id}`).join();
    if (shape !== this.shape) {
      this.shape = shape;
      this.#build(links);
    }
    while (this.rows.length < keys.length) this.#addRow(links);
    const found = { same: 0, coming: 0, differs: 0 };
    this.rows.forEach((row, index) => {
      const key = keys[index];
      show(row.element, Boolean(key));
      if (key) found[this.#drawRow(row, key, links)] += 1;
    });
    show(this.table, keys.length > 0);
    setText(this.heading, inWords(found, keys.length));
    setAttr(this.heading, "data-differ", found.differs > 0);
    setAttr(this.heading, "data-coming", found.coming > 0);
  }

  #build(links) {
    const many = links.length > MANY;
    const heads = links.map((link, index) =>
      el("th", { scope: "col", title: nameOf(link) }, el("span", {}, many ? headOf(index) : nameOf(link))));
    this.body = el("tbody");
    this.table = el("table", { class: `key-table ${many ? "many" : ""}` },
      el("caption", { class: "hidden" }, "The newest keys, and whether each replica has their newest version"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "key"), el("th", { scope: "col", title: "leader" }, el("span", {}, many ? "L" : "leader")), ...heads)),
      this.body);
    this.rows = [];
    this.place.replaceChildren(this.table);
    this.#turnHeads();
  }

  /** Names that have no room beside each other stand upright. */
  #turnHeads() {
    const { links } = this.model;
    if (!this.table || links.length > MANY) return;
    const longest = Math.max("leader".length, ...links.map((link) => nameOf(link).length));
    const each = (this.width * REPLICAS_SHARE) / (links.length + 1);
    this.table.classList.toggle("upright", each < longest * CHARACTER_PX);
  }

  #addRow(links) {
    const name = el("th", { scope: "row" });
    const cells = links.map(() => el("td"));
    const element = el("tr", {}, name, el("td", { class: "same", title: "the newest version" }, "="), ...cells);
    this.rows.push({ element, name, cells });
    this.body.append(element);
  }

  #drawRow(row, key, links) {
    if (row.shown !== key) {
      row.shown = key;
      setText(row.name, key.deleted ? `${key.name} (deleted)` : key.name);
      setAttr(row.name, "title", `${key.name}\n${key.version}`);
    }
    let worst = "same";
    links.forEach((link, index) => {
      const gone = link.state === "cut" || link.state === "down";
      const found = this.model.has(key, link) ? "same" : gone ? "differs" : "coming";
      const cell = row.cells[index];
      if (found === "differs" || worst === "same") worst = found;
      if (cell.className === found) return;
      cell.className = found;
      setText(cell, SIGNS[found]);
    });
    setAttr(row.element, "class", `row-${worst}`);
    return worst;
  }

  /** Keys that were there before the page: from the leader's own list. */
  async seed() {
    try {
      const { items } = await ask("GET", "kv?limit=500");
      items.sort((one, other) => compareVersions(one.version, other.version));
      for (const { key, version } of items.slice(-SHOWN_KEYS)) this.model.noteKey(key, version, false);
    } catch {
      // They come as they are written.
    }
  }
}

/** How many of the keys that are shown differ. Where all do, older ones may as well. */
function inWords({ coming, differs }, keys) {
  if (!keys) return "nothing written yet";
  const told = [];
  const all = (n) => `${count(n)}${n === SHOWN_KEYS ? " or more" : ""}`;
  if (differs) told.push(differs === 1 ? "1 key differs" : `${all(differs)} keys differ`);
  if (coming) told.push(`${all(coming)} on ${coming === 1 ? "its" : "their"} way`);
  if (told.length) return told.join(", ");
  return keys === 1 ? "it is the same everywhere" : "the same everywhere";
}

/** The number of a narrow column: of the first, and of each fifth. */
function headOf(index) {
  return index === 0 || (index + 1) % 5 === 0 ? String(index + 1) : "";
}

/** "Compare all replicas": what the leader finds when it looks at each. */
export async function compareReplicas(button, place) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  setText(button, "Comparing …");
  try {
    place.replaceChildren(comparison(await ask("GET", "admin/replica-status")));
  } catch (problem) {
    place.replaceChildren(el("p", { class: "problem", role: "alert" }, saying(problem)));
  } finally {
    button.removeAttribute("aria-busy");
    setText(button, "Compare all replicas");
    show(place, true);
  }
}

function comparison({ leader, followers }) {
  const rows = followers.map((one) => {
    const keys = one.differing_keys_total ? `${count(one.differing_keys_total)}: ${one.differing_keys.slice(0, 3).join(", ")}${one.differing_keys_total > 3 ? " …" : ""}` : one.differing_keys_total === 0 ? "none" : "–";
    const found = el("td", { class: `found ${one.status}` }, { match: "= match", mismatch: "≠ mismatch", unreachable: "✕ unreachable" }[one.status] ?? one.status);
    if (one.error) found.title = one.error;
    return el("tr", {}, el("th", { scope: "row" }, one.node_id ?? one.url), found,
      el("td", { class: "number" }, one.records === null ? "–" : count(one.records)),
      el("td", { class: "digest", title: one.digest ?? "" }, one.digest?.slice(0, 8) ?? "–"),
      el("td", {}, keys));
  });
  const close = el("button", { type: "button", class: "small quiet" }, "close");
  close.addEventListener("click", () => {
    show($("compared"), false);
    $("compare").focus();
  });
  const match = followers.filter((one) => one.status === "match").length;
  return el("div", { class: "scroll" },
    el("p", { role: "status" }, `${match} of ${followers.length} followers match the leader, at ${clock()}. `, close),
    el("table", { class: "compare-table" },
      el("thead", {}, el("tr", {}, ...["replica", "compared", "records", "digest", "keys that differ"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, el("tr", {}, el("th", { scope: "row" }, `${leader.node_id} (leader)`), el("td"), el("td", { class: "number" }, count(leader.records)), el("td", { class: "digest", title: leader.digest }, leader.digest.slice(0, 8)), el("td")), ...rows)));
}
