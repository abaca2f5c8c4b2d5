// The laboratory: what can be changed at a leader. Each control sends one request, and says what came of it.

import { $, clock, count, el, ms, plural, range, setAttr, setText, show } from "./dom.js";
import { Problem, ask, keyPath, post, saying } from "./api.js";
import { nameOf } from "./model.js";

const SHOWN_RESULTS = 8;
const BURST_WRITES = 100;
const BURST_AT_ONCE = 5;
const BURST_KEYS = 20;
const FAILURES = { // of a burst, by the problem's code
  not_enough_followers: "refused: too few followers can be reached",
  quorum_not_met: "not confirmed in time",
  overloaded: "refused: the node has too much to do",
  no_answer: "without an answer",
};

export class Controls {
  constructor(model) {
    this.model = model;
    this.busy = new Set();
    this.wires = new Map();
    this.wireShape = "";
    $("quorum-less").addEventListener("click", () => this.#stepQuorum(-1));
    $("quorum-more").addEventListener("click", () => this.#stepQuorum(1));
    $("quorum-force").addEventListener("click", () => this.#setQuorum(this.wantedQuorum, true));
    $("lag-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#setLag();
    });
    $("lag-follower").addEventListener("change", () => this.#fillLag());
    for (const button of document.querySelectorAll("[data-lag]")) {
      button.addEventListener("click", () => {
        [$("lag-min").value, $("lag-max").value] = button.dataset.lag.split(",");
        this.#setLag();
      });
    }
    $("heal-all").addEventListener("click", () => this.#healAll());
    $("write-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#write();
    });
    $("write-delete").addEventListener("click", () => this.#delete());
    $("burst").addEventListener("click", () => this.#burst());
    for (const id of ["write-key", "write-value", "lag-min", "lag-max"]) {
      $(id).addEventListener("input", () => complain($(id), this.#problemOf(id), ""));
    }
  }

  #problemOf(id) {
    return $({ "write-key": "key-problem", "write-value": "value-problem" }[id] ?? "lag-problem");
  }

  draw() {
    const { leader, links } = this.model;
    if (!leader) return;
    const { write_quorum: quorum, pending_write_quorum: pending } = leader;
    setText($("quorum-value"), String(quorum));
    setText($("quorum-of"), `of ${plural(links.length, "follower", "followers")}`);
    setAttr($("quorum-less"), "aria-disabled", quorum <= 0);
    setAttr($("quorum-more"), "aria-disabled", quorum >= links.length);
    setText($("quorum-note"), pending !== null
      ? `${pending} was asked for and is not confirmed yet: ${quorum} is in force until it is.`
      : quorum === 0 ? "Asynchronous: confirmed once it is on disk at the leader."
      : `Confirmed once it is on disk at the leader and at ${plural(quorum, "follower", "followers")}.`);
    setAttr($("quorum-note"), "data-pending", pending !== null);
    this.#drawWires(links);
  }

  #drawWires(links) {
    const shape = links.map((link) => `${link.url} ${nameOf(link)}`).join();
    if (shape !== this.wireShape) {
      this.wireShape = shape;
      this.#buildWires(links);
    }
    for (const link of links) {
      const { button, state } = this.wires.get(link.url);
      const cut = link.state === "cut";
      setAttr(button, "aria-pressed", cut);
      setAttr(button, "data-state", link.state);
      setText(state, link.state);
    }
    // It stays where it is: what comes and goes would move all that is below.
    setAttr($("heal-all"), "aria-disabled", !links.some((link) => link.state === "cut"));
  }

  #buildWires(links) {
    this.wires.clear();
    const chosen = $("lag-follower").value;
    $("lag-follower").replaceChildren(el("option", { value: "" }, "all followers"));
    $("wires").replaceChildren();
    for (const link of links) {
      const state = el("span", { class: "state" });
      const button = el("button", { type: "button", class: "wire-switch", "aria-label": `Cut the wire to ${nameOf(link)}` },
        el("span", { class: "wire-name" }, nameOf(link)), state);
      button.addEventListener("click", () => this.toggleWire(this.model.links.find((one) => one.url === link.url)));
      this.wires.set(link.url, { button, state });
      $("wires").append(el("li", {}, button));
      $("lag-follower").append(el("option", { value: link.url }, nameOf(link)));
    }
    $("lag-follower").value = links.some((link) => link.url === chosen) ? chosen : "";
    this.#fillLag();
  }

  #fillLag() {
    const { leader, links } = this.model;
    const one = links.find((link) => link.url === $("lag-follower").value) ?? leader?.lag;
    if (!one) return;
    $("lag-min").value = one.min_delay_ms;
    $("lag-max").value = one.max_delay_ms;
  }

  // -- quorum --

  #stepQuorum(step) {
    const { leader, links } = this.model;
    if (!leader) return;
    const wanted = leader.write_quorum + step;
    if (wanted < 0 || wanted > links.length) return;
    this.#setQuorum(wanted, false);
  }

  #setQuorum(wanted, force) {
    this.wantedQuorum = wanted;
    show($("quorum-force"), false);
    return this.#once("quorum", async () => {
      complain($("quorum-value"), $("quorum-problem"), "");
      try {
        const body = force ? { write_quorum: wanted, force } : { write_quorum: wanted };
        const told = await post("admin/quorum", body);
        report("done", `write quorum ${told.write_quorum}, it was ${told.previous_write_quorum}`, told.warning);
      } catch (problem) {
        complain($("quorum-value"), $("quorum-problem"), problem.message);
        report("failed", `write quorum ${wanted}`, saying(problem));
        if (["not_enough_followers", "quorum_not_met"].includes(problem.code)) {
          setText($("quorum-force"), `Set ${wanted} by force`);
          show($("quorum-force"), true);
        }
      }
    });
  }

  // -- lag --

  #setLag() {
    const [min, max] = [$("lag-min"), $("lag-max")].map((input) => (input.value.trim() === "" ? NaN : Number(input.value)));
    const problem = $("lag-problem");
    if (!Number.isFinite(min)) return complain($("lag-min"), problem, "from: expected a number of milliseconds");
    if (!Number.isFinite(max)) return complain($("lag-max"), problem, "to: expected a number of milliseconds");
    const url = $("lag-follower").value;
    const whose = url ? nameOf(this.model.links.find((link) => link.url === url) ?? { url }) : "all followers";
    return this.#once("lag", async () => {
      complain($("lag-min"), problem, "");
      complain($("lag-max"), problem, "");
      try {
        const content = { min_delay_ms: min, max_delay_ms: max };
        await post("admin/lag", url ? { ...content, follower: url } : content);
        report("done", `lag of ${whose}: ${range(min, max)}`);
      } catch (error) {
        const said = error.message.replaceAll("min_delay_ms", "from").replaceAll("max_delay_ms", "to").replaceAll("<=", "≤").replace(/\d+/g, count);
        complain($("lag-max"), problem, said);
        report("failed", `lag of ${whose}`, said);
      }
    });
  }

  // -- wires --

  async toggleWire(link) {
    if (!link) return;
    const cut = link.state !== "cut";
    await this.#once(`wire ${link.url}`, () => this.#setWire(link, cut));
  }

  async #setWire(link, cut) {
    setText($("wires-problem"), "");
    show($("wires-problem"), false);
    try {
      await post("admin/partition", { follower: link.url, cut });
      report("done", `wire to ${nameOf(link)} ${cut ? "cut" : "healed"}`);
    } catch (problem) {
      setText($("wires-problem"), problem.message);
      show($("wires-problem"), true);
      report("failed", `${cut ? "cut" : "heal"} the wire to ${nameOf(link)}`, saying(problem));
    }
  }

  async #healAll() {
    const cut = this.model.links.filter((link) => link.state === "cut");
    for (const link of cut) await this.#setWire(link, false);
  }

  // -- writes --

  async #write() {
    const key = $("write-key");
    const text = $("write-value").value.trim();
    const path = this.#path(key);
    if (path === null) return;
    try {
      JSON.parse(text);
    } catch (error) {
      const example = text && !/["{[]/.test(text) ? ` (a text needs quotes: ${JSON.stringify(text)})` : "";
      complain($("write-value"), $("value-problem"), `value: expected JSON${example}. ${error.message}`);
      return;
    }
    complain($("write-value"), $("value-problem"), "");
    // As it was typed: numbers that JavaScript would round are for the node to judge.
    await this.#send("PUT", `${path}?trace=true`, key.value, `{"value":${text}}`);
  }

  async #delete() {
    const key = $("write-key");
    const path = this.#path(key);
    if (path !== null) await this.#send("DELETE", `${path}?trace=true`, key.value);
  }

  #path(input) {
    try {
      const path = keyPath(input.value);
      complain(input, $("key-problem"), "");
      return path;
    } catch (problem) {
      complain(input, $("key-problem"), problem.message);
      return null;
    }
  }

  /** One write. Several may wait at the same time: each has a line, which tells its outcome in the end. */
  async #send(method, path, key, body) {
    const what = method === "PUT" ? "write" : "delete";
    const line = report("waiting", `${what} ${key}`, `waits for ${plural(this.model.leader?.write_quorum ?? 0, "follower", "followers")} …`);
    try {
      const told = await ask(method, path, body);
      report("done", `${what} ${key}: confirmed after ${ms(told.trace.quorum_ms)} ms`, `by ${plural(told.follower_acks, "follower", "followers")}; version ${told.version}`, line);
    } catch (problem) {
      const perhaps = problem.code === "quorum_not_met";
      report(perhaps ? "unconfirmed" : "failed", `${what} ${key}: ${perhaps ? "not confirmed" : "refused"}`, saying(problem), line);
      if (["value", "body"].includes(problem.field)) complain($("write-value"), $("value-problem"), problem.message);
    }
  }

  #burst() {
    return this.#once("burst", async () => {
      const progress = $("burst-progress");
      progress.value = 0;
      show(progress, true);
      setText($("burst"), "Writing …");
      const times = [];
      const failures = new Map();
      const began = performance.now();
      let next = 0;
      let lost = false;
      const write = async () => {
        while (next < BURST_WRITES && !lost) {
          const n = next++;
          try {
            const told = await ask("PUT", `kv/${encodeURIComponent(`burst/${String(n % BURST_KEYS).padStart(2, "0")}`)}?trace=true`, `{"value":${n}}`);
            times.push(told.trace.quorum_ms);
          } catch (problem) {
            failures.set(problem.code, (failures.get(problem.code) ?? 0) + 1);
            lost ||= problem.code === "no_answer"; // the node is gone: the rest would fail alike
          }
          progress.value += 1;
        }
      };
      await Promise.all(Array.from({ length: BURST_AT_ONCE }, write));
      this.#burstDone(times, failures, BURST_WRITES - next, performance.now() - began);
    });
  }

  #burstDone(times, failures, unsent, tookMs) {
    times.sort((one, other) => one - other);
    const at = (share) => ms(times[Math.min(times.length - 1, Math.floor(times.length * share))]);
    const failed = [...failures].map(([code, n]) => `${n} ${FAILURES[code] ?? code.replaceAll("_", " ")}`).join(", ");
    const stopped = unsent ? `; the connection was lost, ${unsent} not sent` : "";
    const told = `${times.length} confirmed, ${failed || "none failed"}${stopped}`;
    const figures = times.length ? `p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, ${(tookMs / 1000).toFixed(1)} s in all` : "";
    show($("burst-progress"), false);
    setText($("burst"), "100 writes");
    setText($("burst-result"), `${told}. ${figures}`);
    report(failures.size ? "unconfirmed" : "done", `burst: ${told}`, figures);
  }

  /** One request of a kind at a time. */
  async #once(kind, act) {
    if (this.busy.has(kind)) return;
    this.busy.add(kind);
    try {
      await act();
    } finally {
      this.busy.delete(kind);
    }
  }
}

/** What came of something: a line that is read out as well. A line given is told anew. */
export function report(kind, what, more = "", line = null, list = $("results")) {
    const parts = [el("time", {}, clock()), el("b", {}, what), ...(more ? [el("span", { class: "more" }, more)] : [])];
  if (line?.isConnected) {
    line.replaceChildren(...parts);
  } else {
    line = el("li", {}, ...parts);
    list.prepend(line);
  }
  line.dataset.kind = kind;
  while (list.children.length > SHOWN_RESULTS) list.lastChild.remove();
  return line;
}

/** Say what is wrong beside a field; "" takes it back. */
export function complain(field, place, text) {
  setText(place, text);
  show(place, Boolean(text));
  if (field.matches("input, textarea")) {
    setAttr(field, "aria-invalid", Boolean(text));
    if (text) field.focus();
  }
}

export { Problem };
