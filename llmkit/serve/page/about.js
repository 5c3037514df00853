// How to use the server from a program, and what was used of it.

import { codeBlock } from "./markdown.js";
import { ask, load } from "./server.js";
import { breakable, copier, count, make, moment, short, usd } from "./words.js";

const at = (id) => document.getElementById(id);

/** Show the address of the API, and how to call a model with it; *withKey* says whether a key is needed. */
export function showApi(model, withKey) {
  const address = new URL("v1", document.baseURI).href;
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] }).replace(/'/g, "'\\''");
  const curl = [
    `curl ${address}/chat/completions \\`,
    ...(withKey ? ['  -H "Authorization: Bearer $LLMKIT_KEY" \\'] : []),
    '  -H "Content-Type: application/json" \\',
    `  -d '${body}'`,
  ].join("\n");
  const key = withKey ? 'os.environ["LLMKIT_KEY"]' : '"none"';
  const python = [
    ...(withKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    "client = OpenAI(",
    `    base_url=${JSON.stringify(address)},`,
    `    api_key=${key},`,
    ")",
    "reply = client.chat.completions.create(",
    `    model=${JSON.stringify(model)},`,
    '    messages=[{"role": "user", "content": "Hello"}],',
    ")",
    "print(reply.choices[0].message.content)",
  ].join("\n");
  const line = make("p", { className: "address" }, make("code", {}, address), copier(() => address, "Copy the address"));
  const ways = [["curl", curl], ["The OpenAI client for Python", python]].map(([name, text], number) =>
    make("details", { name: "api", open: number === 0 }, make("summary", {}, name), codeBlock(text, name)));
  at("api").replaceChildren(line, ...ways);
}

/** Save the description of the API as a file; a link alone would come without the key. */
export async function saveDescription() {
  const href = URL.createObjectURL(await (await ask("openapi.json")).blob());
  make("a", { href, download: "llmkit-openapi.json" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}

/** Show what was used, the dearest model first, and the budgets. */
export async function showUsage() {
  const found = await load("usage");
  const rows = found.models.map((line) => {
    const cost = usd(line.cost_usd) + (line.unpriced && line.cost_usd !== null ? " + unknown" : "");
    const numbers = [count(line.calls), short(line.prompt_tokens + line.completion_tokens), cost];
    return make("tr", {}, make("th", { scope: "row" }, ...breakable(line.model)), ...numbers.map((text) => make("td", {}, text)));
  });
  const heads = ["Model", "Calls", "Tokens", "Cost"].map((text) => make("th", { scope: "col" }, text));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  at("usage").replaceChildren(rows.length ? table : make("p", { className: "soft" }, "Nothing was asked yet."));
  at("budgets").replaceChildren(...(found.budgets.length ? [make("h2", {}, "Budgets"), ...found.budgets.map(budget)] : []));
}

function budget(state) {
  const used = state.settled + state.reserved + state.possibly_paid;
  const ends = state.ends_at ? `until ${moment(state.ends_at * 1000, { withTime: false })}` : "";
  const period = state.period === "total" ? "in all" : `a ${state.period}`;
  const unsure = state.possibly_paid ? ` (${usd(state.possibly_paid)} of it possibly paid)` : "";
  const text = `${state.name}: ${usd(used)}${unsure} of ${usd(state.limit_usd)} ${period}${ends && ", "}`;
  const meter = make("meter", { max: state.limit_usd || 1, value: used, "aria-label": text + ends });
  const told = make("div", {}, text, make("span", { className: "whole" }, ends));
  return make("div", { className: "budget" }, told, meter);
}
