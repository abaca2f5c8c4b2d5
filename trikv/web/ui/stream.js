// The node's events: one connection, opened again by itself whenever it breaks.
//
// - The node says something at least once a second. Silence for longer is a lost connection, whatever the
//   browser thinks of it: a node that is paused keeps its connections open.
// - After a break the first event is the whole state, so nothing is remembered across it.
// - A page that nobody looks at lets go: the node has nothing to make then. So does one that is left: a browser
//   keeps it, with its connection, for somebody who comes back, and has only six for one node.

const SILENCE_MS = 3500;
const HIDDEN_MS = 30000;
const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 3000;

export class Stream {
  constructor(url, { onFrame, onState, onConnection }) {
    this.url = url;
    this.onFrame = onFrame;
    this.onState = onState;
    this.onConnection = onConnection;
    this.source = null;
    this.waitMs = FIRST_WAIT_MS;
    this.retry = 0;
    this.hideTimer = 0;
    this.heardAt = 0;
    setInterval(() => this.#watch(), 500);
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => {
      if (event.persisted) this.open();
    });
  }

  open() {
    this.#close();
    this.onConnection("connecting");
    this.heardAt = performance.now();
    const source = new EventSource(this.url);
    this.source = source;
    const take = (handle) => (event) => {
      if (source !== this.source) return;
      this.heardAt = performance.now();
      handle(event.data);
    };
    source.addEventListener("state", take((data) => {
      this.waitMs = FIRST_WAIT_MS;
      this.onConnection("live");
      this.onState(JSON.parse(data));
    }));
    source.addEventListener("frame", take((data) => this.onFrame(JSON.parse(data))));
    source.addEventListener("lost", take((data) => this.onConnection("slow", JSON.parse(data).frames)));
    source.addEventListener("end", take((data) => this.#again(JSON.parse(data).reason)));
    source.addEventListener("error", () => {
      if (source === this.source) this.#again("");
    });
  }

  #close() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  #again(reason) {
    this.#close();
    this.onConnection("lost", reason);
    this.retry = setTimeout(() => this.open(), this.waitMs);
    this.waitMs = Math.min(this.waitMs * 1.6, LONGEST_WAIT_MS);
  }

  #watch() {
    if (this.source && performance.now() - this.heardAt > SILENCE_MS) this.#again("the node is silent");
  }

  #seen() {
    clearTimeout(this.hideTimer);
    if (document.hidden) {
      this.hideTimer = setTimeout(() => {
        this.#close();
        this.onConnection("asleep");
      }, HIDDEN_MS);
    } else if (!this.source) {
      this.open();
    }
  }
}
