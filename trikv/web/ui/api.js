// Requests to the node. Whatever it refuses comes back as a Problem, with the node's own words.

export class Problem extends Error {
  constructor(detail, code, status) {
    super(detail);
    this.code = code;
    this.status = status;
  }
}

/** Ask the node. Raises Problem: refused, or no answer. */
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, body, cache: "no-store" });
  } catch {
    throw new Problem("no answer from this node; if it was a write, it may have happened", "no_answer", 0);
  }
  let told = null;
  try {
    told = await answer.json();
  } catch {
    // Said below.
  }
  if (!answer.ok || told === null) {
    throw new Problem(told?.detail ?? told?.title ?? `status ${answer.status}, without words`, told?.code ?? "unknown", answer.status);
  }
  return told;
}

export const post = (path, content) => ask("POST", path, JSON.stringify(content));

/** The path of a key. Raises Problem: a browser cannot ask for it. */
export function keyPath(key) {
  if (key === "") throw new Problem("a key: expected at least one character", "invalid_key", 0);
  if (key === "." || key === "..") {
    throw new Problem("a browser would take this key for a step in a path; other clients can write it", "invalid_key", 0);
  }
  try {
    return `kv/${encodeURIComponent(key)}`;
  } catch {
    throw new Problem("the key is not proper Unicode", "invalid_key", 0);
  }
}

/** What a problem is called, and in the node's words. */
export function saying(problem) {
  const status = problem.status ? `${problem.status} ` : "";
  return `${status}${problem.code}: ${problem.message}`;
}
