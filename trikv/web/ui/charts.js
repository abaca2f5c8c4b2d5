// How long writes took, and how many there were.

import { count, el, ms, onWidth, setAttr, setText, svg } from "./dom.js";

const SERIES = ["commit", "quorum"];

/** Latencies of commits and quorums: a pair of bars for each range. */
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
    const { histogram } = this.model;
    if (!this.width || !histogram) return;
    if (!this.bars) this.#build(histogram.bounds);
    const most = Math.max(1, ...histogram.commit, ...histogram.quorum);
    for (const what of SERIES) {
      histogram[what].forEach((n, index) => {
        const bar = this.bars[what][index];
        const height = n ? Math.max(2, (n / most) * this.inner) : 0;
        setAttr(bar, "height", height.toFixed(1));
        setAttr(bar, "y", (this.inner + 14 - height).toFixed(1));
      });
    }
    setText(this.most, most > 1 ? count(most) : "");
    const writes = histogram.quorum.reduce((sum, n) => sum + n, 0);
    setAttr(this.picture, "aria-label", `Latencies of ${writes} writes. Commit: ${this.#share("commit")}. Quorum: ${this.#share("quorum")}.`);
    setText(this.summary, this.#words(writes));
  }

  #words(writes) {
    if (!writes) return "Nothing written since this page was opened.";
    const { sample } = this.model;
    const theory = this.model.theoryMs();
    const mean = sample.count ? ` Mean of the last ${count(sample.count)} seen: ${ms(sample.sumMs / sample.count)} ms` : "";
    const expected = mean && theory !== null ? `; in theory ${ms(theory)} ms.` : mean ? "." : "";
    return `${count(writes)} confirmed, half of them within ${this.#half()}.${mean}${expected}`;
  }

  #half() {
    return this.#quantile("quorum", 0.5);
  }

  #share(what) {
    return `half within ${this.#quantile(what, 0.5)}, 95 % within ${this.#quantile(what, 0.95)}`;
  }

  #quantile(what, share) {
    const { histogram } = this.model;
    const all = histogram[what].reduce((sum, n) => sum + n, 0);
    let sum = 0;
    for (const [index, n] of histogram[what].entries()) {
      sum += n;
      if (sum >= all * share) return index < histogram.bounds.length ? `${bound(histogram.bounds[index])}` : `more than ${bound(histogram.bounds.at(-1))}`;
    }
    return "–";
  }

  #build(bounds) {
    this.inner = 84;
    const slot = this.width / (bounds.length + 1);
    const each = Math.min(11, slot * 0.38);
    this.picture = svg("svg", { class: "histogram", width: this.width, height: this.inner + 34, role: "img" });
    this.bars = { commit: [], quorum: [] };
    for (let index = 0; index <= bounds.length; index += 1) {
      const middle = (index + 0.5) * slot;
      SERIES.forEach((what, place) => {
        const bar = svg("rect", { class: what, x: (middle - each + place * each).toFixed(1), width: (each - 1).toFixed(1), y: this.inner + 14, height: 0 });
        this.bars[what].push(bar);
        this.picture.append(bar);
      });
      if (index < bounds.length) {
        const named = Number.isInteger(Math.log10(bounds[index]));
        const x = ((index + 1) * slot).toFixed(1);
        this.picture.append(svg("path", { class: "mark", d: `M${x} ${this.inner + 14}v${named ? 6 : 3}` }));
        if (named) this.picture.append(svg("text", { x, y: this.inner + 31, "text-anchor": "middle" }, bound(bounds[index])));
      }
    }
    this.most = svg("text", { class: "most", x: 0, y: 10 });
    this.picture.append(svg("path", { class: "base", d: `M0 ${this.inner + 14.5}H${this.width}` }), this.most);
    this.place.replaceChildren(this.picture,
      el("ul", { class: "legend" }, el("li", {}, el("span", { class: "key bar commit" }), "commit"),
        el("li", {}, el("span", { class: "key bar quorum" }), "quorum")));
  }
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
