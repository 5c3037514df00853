// One conversation: its questions and answers on the page. The server keeps it; here is only what is shown of it.

import { Shown } from "./markdown.js";
import { ask, events, load, Refused } from "./server.js";
import { button, copier, count, make, seconds, usd } from "./words.js";

const NEAR_PX = 60; // who is that near to the end of the log wants to see what comes

/** Shows a conversation in *log*, and asks in it. */
export class Talk {
  id = "";
  #log;
  #running = null;
  #told;
  #follows = true;

  /** *told* is called with what happens, in words, and whether it is an error. */
  constructor(log, told) {
    this.#log = log;
    this.#told = told;
    log.addEventListener("grown", () => this.#follow());
    log.addEventListener("scroll", () => {
      this.#follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
    });
  }

  get isRunning() {
    return this.#running !== null;
  }

  /** Stop the answer that is arriving; the server keeps what has arrived. */
  stop() {
    this.#running?.abort();
  }

  // an answer that is left behind has no more to say here
  #leave() {
    this.stop();
    this.#running = null;
  }

  /** Begin a new conversation, which the server hears of with its first question. */
  clear(name) {
    this.#leave();
    this.id = "";
    const hint = "Ask something below. The conversation is kept on this server, for you alone.";
    this.#log.replaceChildren(make("div", { className: "empty" }, make("p", { className: "big" }, name), make("p", {}, hint)));
  }

  /** Show a conversation that the server has, and return its description. */
  async open(id) {
    this.#leave();
    const found = await load(`conversations/${encodeURIComponent(id)}`);
    this.id = id;
    this.#log.replaceChildren();
    for (const message of found.messages) {
      if (message.role === "user") this.#question(message.content);
      else this.#answer(found.model, message).end(message.content, message.answer);
    }
    if (found.messages.at(-1)?.role === "user") this.#failed("This question has no answer.", found.model);
    this.#log.scrollTop = this.#log.scrollHeight;
    return found;
  }

  /**
   * Ask a question, or the last one again if *content* is null; return whether there is a whole answer.
   * *named* is called when the conversation has an id.
   */
  async ask(model, variables, content, named) {
    this.#log.querySelector(".empty")?.remove();
    this.#log.querySelector("article.error")?.remove();
    const mine = content === null ? null : this.#question(content);
    const shown = this.#answer(model, {});
    const running = (this.#running = new AbortController());
    const isCurrent = () => this.#running === running;
    this.#log.setAttribute("aria-busy", "true");
    this.#told("Answering …");
    this.#log.scrollTop = this.#log.scrollHeight;
    let text = "", reasoning = "", numbers = null, isKept = false;
    try {
      const path = this.id ? `conversations/${encodeURIComponent(this.id)}` : "conversations";
      const body = this.id ? { ...(content === null ? {} : { content }) } : { model, variables, content };
      const accept = "text/event-stream";
      const answer = await ask(path, { method: "POST", body, signal: running.signal, accept });
      this.id = answer.headers.get("x-llmkit-conversation") || this.id;
      isKept = true;
      named();
      for await (const event of events(answer)) {
        text += event.content || "";
        reasoning += event.reasoning || "";
        if (event.answer) numbers = event;
        else shown.grow(text, reasoning);
      }
      shown.end(text, numbers?.answer);
      if (isCurrent()) this.#told(numbers?.kept === false ? "This answer could not be kept by the server." : "");
      return true;
    } catch (error) {
      if (text) shown.end(text, null, error.name === "AbortError" ? "stopped" : "broke off");
      else shown.remove();
      if (error.name === "AbortError") {
        if (isCurrent()) this.#told("Stopped.");
        return false;
      }
      if (!(error instanceof Refused)) throw error;
      this.id ||= error.conversation || "";
      // a question that the server has can be asked again; one that it does not have goes back to where it was written
      isKept ||= Boolean(error.conversation);
      error.isShown = isKept || (mine === null && error.status !== 401 && error.status !== 404);
      if (error.isShown) this.#failed(error.message, model);
      else mine?.remove();
      throw error;
    } finally {
      if (isCurrent()) this.#running = null;
      this.#log.setAttribute("aria-busy", "false");
    }
  }

  #question(text) {
    const made = make("article", { className: "user", "aria-label": "You" }, text);
    this.#log.append(made);
    return made;
  }

  #answer(model, { reasoning = "", interrupted = false }) {
    const body = make("div", { className: "markdown" });
    const waiting = make("p", { className: "waiting soft" }, "…");
    const thoughts = make("details", { hidden: !reasoning }, make("summary", {}, "Thoughts"), make("p", {}, reasoning));
    const made = make("article", { className: "assistant", "aria-label": model }, thoughts, waiting, body);
    const shown = new Shown(body);
    this.#log.append(made);
    return {
      grow: (text, thought) => {
        if (thought) {
          thoughts.hidden = false;
          thoughts.lastChild.textContent = thought;
        }
        waiting.hidden = text !== "";
        if (text) shown.grow(text);
      },
      end: (text, numbers, why = interrupted ? "stopped" : "") => {
        waiting.remove();
        if (text) shown.end(text);
        else body.append(make("p", { className: "soft" }, "The model gave no text."));
        made.append(footer(model, text, numbers, why));
        this.#follow();
      },
      remove: () => made.remove(),
    };
  }

  #failed(message, model) {
    const again = button("Try again", () => {
      this.#log.dispatchEvent(new CustomEvent("again", { detail: model }));
    }, { className: "plain" });
    this.#log.append(make("article", { className: "error", "aria-label": "Error" }, make("p", {}, message), again));
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  #follow() {
    if (this.#follows) this.#log.scrollTop = this.#log.scrollHeight;
  }
}

function footer(model, text, numbers, why) {
  const said = [model];
  if (numbers) {
    said.push(`${count(numbers.prompt_tokens)} + ${count(numbers.completion_tokens)} tokens`);
    said.push(numbers.cost_usd === null ? "price unknown" : usd(numbers.cost_usd));
    said.push(seconds(numbers.latency_s));
    if (numbers.finish_reason === "length") said.push("cut at the longest that is allowed");
  }
  if (why) said.push(why);
  return make("footer", {}, make("span", {}, said.join(" · ")), copier(() => text, "Copy the answer"));
}
