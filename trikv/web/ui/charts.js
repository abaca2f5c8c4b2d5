// How long writes took, and how many there were.

import { axisStep, count, el, ms, niceAbove, onWidth, setAttr, setText, span, svg } from "./dom.js";

const BINS = 24;
const HIGH = 84;
const TOP = 14;

/** Latencies of the writes that this page saw confirmed, on a linear axis, and what theory expects of them. */
export class Histogram {
  constructor(place, summary, model) {
    this.place = place;
    this.summary = summary;
    this.model = model;
    this.width = 0;
    onWidth(place, (width) => {
      this.width = width;
      this.bars = null;
      this.draw();
    });
  }

  draw() {
    const { histogram, seen: { quorumMs } } = this.model;
    if (!this.width || !histogram) return;
    if (!this.bars) this.#build();
    const theory = this.model.theory();
    const slowest = quorumMs.reduce((most, one) => Math.max(most, one), 0);
    const axisMs = niceAbove(Math.max(1, slowest, theory ? (theory.low + theory.range) * 1.05 : 0));
    this.#drawAxis(axisMs);
    const counts = new Array(BINS).fill(0);
    for (const one of quorumMs) counts[Math.min(BINS - 1, Math.floor((one / axisMs) * BINS))] += 1;
    const curve = theory && theory.range ? expected(theory, axisMs, quorumMs.length || 1) : [];
    const most = Math.max(1, ...counts, ...(quorumMs.length ? curve.map(([, n]) => n) : []));
    const scale = quorumMs.length ? most : Math.max(...curve.map(([, n]) => n), 1e-9);
    counts.forEach((n, index) => {
      const height = n ? Math.max(2, (n / scale) * HIGH) : 0;
      setAttr(this.bars[index], "height", height.toFixed(1));
      setAttr(this.bars[index], "y", (TOP + HIGH - height).toFixed(1));
    });
    setAttr(this.theory, "d", curve.map(([at, n], index) =>
      `${index ? "L" : "M"}${((at / axisMs) * this.width).toFixed(1)} ${(TOP + HIGH - (n / scale) * HIGH).toFixed(1)}`).join(""));
    setAttr(this.theoryKey, "data-shown", Boolean(curve.length));
    setText(this.most, quorumMs.length && most > 1 ? count(Math.round(most)) : "");
    const writes = histogram.quorum.reduce((sum, n) => sum + n, 0);
    setAttr(this.picture, "aria-label", `Latencies of ${quorumMs.length} writes that were seen. Of all ${writes}: commit: ${this.#share("commit")}. Quorum: ${this.#share("quorum")}.`);
    setText(this.summary, this.#words(writes));
  }

  #words(writes) {
    if (!writes) return "Nothing written since this page was opened.";
    const { sample } = this.model;
    const theory = this.model.theoryMs();
    const mean = sample.count ? ` Mean of the last ${count(sample.count)} seen: ${ms(sample.sumMs / sample.count)} ms` : "";
    const said = mean && theory !== null ? `; in theory ${ms(theory)} ms.` : mean ? "." : "";
    return `${count(writes)} confirmed, half of them within ${this.#median()}; half of the commits within ${this.#quantile("commit", 0.5)}.${mean}${said}`;
  }

  #share(what) {
    return `half within ${this.#quantile(what, 0.5)}, 95 % within ${this.#quantile(what, 0.95)}`;
  }

  /** The median: exact if each write that was counted was seen as well. */
  #median() {
    const { histogram, seen: { quorumMs } } = this.model;
    const counted = histogram.quorum.reduce((sum, n) => sum + n, 0);
    if (quorumMs.length !== counted) return this.#quantile("quorum", 0.5);
    const sorted = quorumMs.toSorted((one, other) => one - other);
    const middle = counted >> 1;
    return span(counted % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2);
  }

  /** A quantile of what was counted in buckets: within one it is taken to be spread evenly. */
  #quantile(what, share) {
    const { histogram: { bounds, [what]: counts } } = this.model;
    const wanted = counts.reduce((sum, n) => sum + n, 0) * share;
    let below = 0;
    for (const [index, n] of counts.entries()) {
      if (n && below + n >= wanted) {
        if (index === bounds.length) return `more than ${span(bounds.at(-1))}`;
        const from = index ? bounds[index - 1] : 0;
        return `about ${span(from + ((bounds[index] - from) * (wanted - below)) / n)}`;
      }
      below += n;
    }
    return "–";
  }

  #drawAxis(axisMs) {
    if (axisMs === this.axisMs) return;
    this.axisMs = axisMs;
    const step = axisStep(axisMs, this.width);
    const marks = [];
    for (let at = 0; at <= axisMs * 1.0001; at += step) {
      const x = ((at / axisMs) * this.width).toFixed(1);
      const anchor = at === 0 ? "start" : at > axisMs * 0.93 ? "end" : "middle";
      marks.push(svg("path", { class: "mark", d: `M${x} ${TOP + HIGH}v5` }),
        svg("text", { x, y: TOP + HIGH + 17, "text-anchor": anchor }, at === 0 ? "0" : bound(+at.toFixed(2))));
    }
    this.axis.replaceChildren(...marks);
  }

  #build() {
    this.axisMs = 0;
    const slot = this.width / BINS;
    this.bars = Array.from({ length: BINS }, (_, index) =>
      svg("rect", { class: "quorum", x: (index * slot + 0.5).toFixed(1), width: Math.max(1, slot - 1).toFixed(1), y: TOP + HIGH, height: 0 }));
    this.theory = svg("path", { class: "theory" });
    this.axis = svg("g");
    this.most = svg("text", { class: "most", x: 0, y: 10 });
    this.picture = svg("svg", { class: "histogram", width: this.width, height: TOP + HIGH + 20, role: "img" },
      ...this.bars, svg("path", { class: "base", d: `M0 ${TOP + HIGH + 0.5}H${this.width}` }), this.theory, this.axis, this.most);
    this.theoryKey = el("li", { class: "of-theory" }, el("span", { class: "key theory" }), "in theory");
    this.place.replaceChildren(this.picture,
      el("ul", { class: "legend" }, el("li", {}, el("span", { class: "key bar quorum" }), "confirmed after"), this.theoryKey));
  }
}

/** How many of so many writes theory expects in a bin around a latency: points of a curve. */
function expected({ k, n, low, range }, axisMs, writes) {
  let ways = k; // n! / ((k - 1)! (n - k)!)
  for (let index = 1; index <= k; index += 1) ways *= (n - k + index) / index;
  const points = [];
  for (let step = 0; step <= 60; step += 1) {
    const share = step / 60;
    const density = (ways * share ** (k - 1) * (1 - share) ** (n - k)) / range;
    points.push([low + share * range, (writes * density * axisMs) / BINS]);
  }
  return points;
}

/** Writes a second, over the last minute. */
export class Rate {
  constructor(place, now, model) {
    this.place = place;
    this.now = now;
    this.model = model;
    this.width = 0;
    onWidth(place, (width) => {
      this.width = width;
      this.picture = null;
      this.draw();
    });
  }

  draw() {
    const { model } = this;
    const seconds = model.follower ? model.followerSeconds : model.seconds;
    const last = Math.floor(model.atMs / 1000);
    if (!this.width || !last) return;
    if (!this.picture) {
      this.ok = svg("path", { class: "ok" });
      this.bad = svg("path", { class: "bad" });
      this.most = svg("text", { class: "most", x: 0, y: 10 });
      this.picture = svg("svg", { class: "rate", width: this.width, height: 78, role: "img" }, this.ok, this.bad,
        svg("path", { class: "base", d: `M0 60.5H${this.width}` }), this.most,
        svg("text", { x: 0, y: 74 }, "a minute ago"), svg("text", { x: this.width, y: 74, "text-anchor": "end" }, "now"));
      this.place.replaceChildren(this.picture);
    }
    const most = Math.max(1, ...seconds.map((s) => s.confirmed + s.unconfirmed + s.refused));
    const slot = this.width / 60;
    let ok = "";
    let bad = "";
    for (const { at, confirmed, unconfirmed, refused } of seconds) {
      const x = (59 - (last - at)) * slot + slot / 2;
      const high = (confirmed / most) * 46;
      const wrong = ((unconfirmed + refused) / most) * 46;
      if (high) ok += `M${x.toFixed(1)} 60v${(-high).toFixed(1)}`;
      if (wrong) bad += `M${x.toFixed(1)} ${(60 - high).toFixed(1)}v${(-wrong).toFixed(1)}`;
    }
    const thickness = Math.max(1, slot - 1).toFixed(1);
    setAttr(this.ok, "d", ok);
    setAttr(this.ok, "stroke-width", thickness);
    setAttr(this.bad, "d", bad);
    setAttr(this.bad, "stroke-width", thickness);
    setText(this.most, most > 1 ? count(most) : "");
    const what = model.follower ? "records/s" : "writes/s";
    const over = seconds.filter((s) => s.at >= last - 5 && s.at < last);
    const rate = over.reduce((sum, s) => sum + s.confirmed, 0) / 5;
    const failed = seconds.reduce((sum, s) => sum + s.unconfirmed + s.refused, 0);
    const text = `${rate < 10 ? rate.toFixed(1) : count(Math.round(rate))} ${what}${failed ? ` · ${count(failed)} not confirmed in the last minute` : ""}`;
    setText(this.now, text);
    setAttr(this.picture, "aria-label", `Over the last minute, at most ${most} in a second; now ${text}`);
  }
}

function bound(value) {
  return value >= 1000 ? `${value / 1000} s` : `${value} ms`;
}
