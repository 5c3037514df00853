// Requests to the server, with the key of this tab; without keys, with a secret that stands for this browser.

const KEY = "llmkit-key", VISITOR = "llmkit-visitor";

/** An answer that is an error, in the server's words. */
export class Refused extends Error {
  constructor(message, status, conversation) {
    super(message);
    Object.assign(this, { status, conversation });
  }
}

/** Return a storage of the browser's, or one that lasts as long as the page where the browser allows none. */
function storage(name) {
  try {
    return window[name];
  } catch {
    const kept = new Map();
    return { getItem: (at) => kept.get(at), setItem: (at, value) => kept.set(at, value), removeItem: (at) => kept.delete(at) };
  }
}

const ofTheTab = storage("sessionStorage"), ofTheBrowser = storage("localStorage");

export const key = {
  get: () => ofTheTab.getItem(KEY) || "",
  set: (value) => (value ? ofTheTab.setItem(KEY, value) : ofTheTab.removeItem(KEY)),
};

// conversations that nobody has a key for belong to whoever knows this; the server stores its hash
function visitor() {
  if (!ofTheBrowser.getItem(VISITOR)) {
    const bytes = crypto.getRandomValues(new Uint8Array(24));
    ofTheBrowser.setItem(VISITOR, btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_"));
  }
  return ofTheBrowser.getItem(VISITOR);
}

/** Return the response to a request, whose path is relative to the page; *body* is sent as JSON. */
export async function ask(path, { method = "GET", body, signal, accept = "application/json" } = {}) {
  const headers = { accept, "x-llmkit-visitor": visitor() };
  if (!/^[\x21-\x7e]*$/.test(key.get())) throw new Refused("The key has a character that no key has.", 401);
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.", 0);
  }
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => null);
  const message = found?.error?.message || `The server answered ${answer.status}.`;
  throw new Refused(message, answer.status, answer.headers.get("x-llmkit-conversation"));
}

export const load = async (path) => (await ask(path)).json();

/** Yield the events of an answer; one that breaks off, or tells an error, is thrown. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Refused("The answer broke off.", 0);
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: ?/gm, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refused(event.error.message, 0);
        yield event;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refused) throw error;
    throw new Refused("The answer broke off.", 0);
  }
}
