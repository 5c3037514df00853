// The page: which model, which conversation, which key; and what happens on a key or a click.

import { saveDescription, showApi, showUsage } from "./about.js";
import { ask, key, load, Refused } from "./server.js";
import { Talk } from "./talk.js";
import { button, make, moment } from "./words.js";

const at = (id) => document.getElementById(id);
let models = [];

function tell(text, isError = false) {
  at("told").textContent = text;
  at("told").classList.toggle("error", isError);
  at("hint").hidden = Boolean(text);
}

const talk = new Talk(at("log"), tell);

// -- keys --------------------------------------------------------------------------------------------------------------

/** Do something; where a key is missing or not known any more, ask for one. */
async function trying(act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) {
      tell("A key is needed.", true);
      askForKey(key.get() ? error.message : "");
    } else {
      tell(error.isShown ? "" : error.message, true);
    }
    return undefined;
  }
}

function askForKey(why = "") {
  key.set("");
  at("key-button").hidden = false;
  at("key-button").textContent = "Use a key";
  at("key-told").textContent = why;
  if (!at("keys").open) at("keys").showModal();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("key").value.trim();
  if (!given) return;
  key.set(given);
  at("key").value = "";
  at("keys").close();
  begun = begin();
});
at("key-later").addEventListener("click", () => at("keys").close());
at("key-button").addEventListener("click", () => {
  if (!key.get()) return askForKey();
  // nothing of what this key has seen stays for the next one
  key.set("");
  location.assign(location.pathname);
});

// -- models and their variables ----------------------------------------------------------------------------------------

const chosen = () => models.find((model) => model.id === at("model").value);

function showModel(values = null) {
  const model = chosen();
  at("description").textContent = model?.description || "";
  const fields = Object.entries(model?.variables || {}).map(([name, usual]) => field(name, usual));
  at("variables").replaceChildren(...fields);
  // a conversation keeps what it began with
  at("variables").hidden = !fields.length || values !== null;
  const told = Object.entries(values || {}).map(([name, value]) => `${name}: ${value}`);
  at("values").textContent = told.join(" · ");
  if (model) showApi(model.id, Boolean(key.get()));
}

function field(name, usual) {
  const id = `variable-${name}`;
  const type = typeof usual === "boolean" ? "checkbox" : typeof usual === "number" ? "number" : "text";
  const input = make("input", { id, type, name, required: usual === null });
  if (type === "number") input.step = "any";
  if (type === "checkbox") input.checked = usual;
  else input.value = usual ?? "";
  if (input.required) input.placeholder = "needed";
  return make("div", { className: "field" }, make("label", { htmlFor: id }, name), input);
}

function given() {
  const values = {};
  for (const input of at("variables").elements) {
    if (input.type === "checkbox") values[input.name] = input.checked;
    else if (input.value !== "") values[input.name] = input.type === "number" ? input.valueAsNumber : input.value;
  }
  return values;
}

// -- conversations -----------------------------------------------------------------------------------------------------

async function showList() {
  const { data } = await load("conversations");
  const items = data.map((each) => {
    const title = each.title || "Without a title";
    const when = make("span", { className: "soft" }, `${each.model} · ${moment(each.updated_at)}`);
    const link = make("a", { href: `#${each.id}` }, make("span", { className: "title" }, title), when);
    if (each.id === talk.id) link.setAttribute("aria-current", "true");
    return make("li", {}, link, button("×", () => remove(each), { className: "plain remove", "aria-label": `Delete: ${title}` }));
  });
  at("list").replaceChildren(...(items.length ? items : [make("li", { className: "soft none" }, "None yet.")]));
}

async function remove(conversation) {
  if (!confirm(`Delete the conversation “${conversation.title}”?`)) return;
  await trying(() => ask(`conversations/${encodeURIComponent(conversation.id)}`, { method: "DELETE" }));
  if (conversation.id === talk.id) anew();
  await trying(showList);
}

function anew() {
  history.pushState(null, "", location.pathname);
  talk.clear(at("model").value);
  tell("");
  showModel();
  mark();
  view("talk");
  at("prompt").focus();
}

/** Show the conversation that the address names, or a new one. */
async function openNamed() {
  const id = location.hash.slice(1);
  if (id && id === talk.id) return;
  tell("");
  talk.clear(at("model").value);
  if (!id) return showModel();
  try {
    const found = await talk.open(id);
    if (!models.some((model) => model.id === found.model)) tell(`${found.model} is not served any more.`, true);
    at("model").value = found.model;
    showModel(found.variables);
    view("talk");
  } catch (error) {
    history.replaceState(null, "", location.pathname);
    showModel();
    throw error;
  } finally {
    mark();
  }
}

function mark() {
  for (const link of at("list").querySelectorAll("a")) {
    if (link.hash === `#${talk.id}`) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function send(content) {
  busy(true);
  const isNew = !talk.id;
  const named = () => {
    if (!isNew || !talk.id || location.hash) return;
    history.replaceState(null, "", `#${talk.id}`);
    showModel(given());
  };
  try {
    await trying(async () => {
      try {
        await talk.ask(at("model").value, isNew ? given() : undefined, content, named);
      } catch (error) {
        if (!error.isShown && content !== null) at("prompt").value ||= content;
        throw error;
      } finally {
        named();
      }
    });
  } finally {
    busy(false);
  }
  if (key.get() || at("key-button").hidden) await trying(() => Promise.all([showList(), showUsage()]));
}

function busy(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
}

at("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  await begun; // before, no model is chosen, and what is shown may change
  const content = at("prompt").value.trim();
  if (!content || talk.isRunning) return;
  if (!talk.id && !at("variables").reportValidity()) return;
  at("prompt").value = "";
  await send(content);
  at("prompt").focus();
});
at("log").addEventListener("again", () => { if (!talk.isRunning) send(null); });
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("composer").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") talk.stop(); });
at("stop").addEventListener("click", () => talk.stop());
at("anew").addEventListener("click", anew);
at("model").addEventListener("change", () => (talk.id ? anew() : (talk.clear(at("model").value), showModel())));
at("variables").addEventListener("submit", (event) => { event.preventDefault(); at("prompt").focus(); });
at("skip").addEventListener("click", (event) => { event.preventDefault(); view("talk"); at("prompt").focus(); });
at("openapi").addEventListener("click", (event) => {
  event.preventDefault();
  trying(saveDescription);
});
addEventListener("hashchange", () => trying(openNamed));

// -- narrow windows show one part at a time ----------------------------------------------------------------------------

function view(name) {
  document.body.dataset.view = name;
  for (const each of at("views").children) {
    if (each.dataset.view === name) each.setAttribute("aria-current", "true");
    else each.removeAttribute("aria-current");
  }
}

at("views").addEventListener("click", (event) => { if (event.target.dataset.view) view(event.target.dataset.view); });
at("list").addEventListener("click", (event) => { if (event.target.closest("a")) view("talk"); });

// -- the beginning -----------------------------------------------------------------------------------------------------

/** Show the usage page, which came as a document of its own, in this one: only a request of a script can carry a key. */
async function showUsagePage() {
  const answer = await ask("usage", { accept: "text/html" });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const style = new CSSStyleSheet();
  style.replaceSync(page.querySelector("style").textContent);
  document.querySelector("link[rel=stylesheet]").disabled = true;
  document.adoptedStyleSheets = [style];
  document.title = page.title;
  document.body.replaceChildren(...page.body.children);
}

/** Done when a question can be asked; what stands beside the conversation comes when it comes. */
async function begin() {
  await trying(async () => {
    if (location.pathname.endsWith("/usage")) return showUsagePage();
    models = (await load("v1/models")).data;
    const before = at("model").value;
    at("model").replaceChildren(...models.map((model) => make("option", { value: model.id }, model.id)));
    if (models.some((model) => model.id === before)) at("model").value = before;
    if (key.get()) {
      at("key-button").hidden = false;
      at("key-button").textContent = "Forget the key";
    }
    tell("");
    trying(() => Promise.all([showList(), showUsage()]));
    await openNamed();
  });
}

let begun = begin();
