// Markdown of a model as elements. What it writes as HTML is shown as text; pictures are links, so that none is loaded;
// links lead to http and https only. The sanitizer has the last word, whatever the renderer makes.

import { Marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";
import { copier, make } from "./words.js";

const LONGEST = 400000; // characters that are rendered; what is longer is shown as it is
const SHORTEST_MS = 40; // between two renderings of an answer that is still arriving
const TAGS = "p br hr h1 h2 h3 h4 h5 h6 strong em del code pre blockquote ul ol li table thead tbody tr th td a";
const ATTRIBUTES = ["href", "align", "start", "data-language"];
const RULES = {
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: ATTRIBUTES,
  ADD_URI_SAFE_ATTR: ATTRIBUTES.slice(1),
  ALLOWED_URI_REGEXP: /^https?:\/\//i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const { sanitize } = globalThis.DOMPurify;

const NAMES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replace(/[&<>"']/g, (letter) => NAMES[letter]);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || "picture")}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text, lang }) => {
      const language = (lang || "").trim().split(/\s/)[0];
      return `<pre data-language="${escaped(language)}"><code>${escaped(text)}</code></pre>`;
    },
  },
});

/** Shows a text, which may grow, as Markdown in an element. Only blocks that have changed are made anew. */
export class Shown {
  #blocks = [];
  #text = "";
  #timer = 0;
  #took = 0;

  constructor(element) {
    this.element = element;
  }

  /** Show a longer text, soon: the longer rendering takes, the less often it is done. */
  grow(text) {
    this.#text = text;
    this.#timer ||= setTimeout(() => this.#render(), Math.max(SHORTEST_MS, 4 * this.#took));
  }

  /** Show the whole text, now. */
  end(text) {
    this.#text = text;
    this.#render({ whole: true });
  }

  #render({ whole = false } = {}) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const began = performance.now();
    try {
      if (this.#text.length > LONGEST) throw new RangeError("too long");
      this.#update(whole);
    } catch {
      // a text that is too long or nested too deep for the renderer can still be read
      this.#blocks = [];
      this.element.replaceChildren(make("div", { className: "plain-text" }, this.#text));
    }
    this.#took = performance.now() - began;
    this.element.dispatchEvent(new Event("grown", { bubbles: true }));
  }

  #update(whole) {
    const tokens = marked.lexer(this.#text);
    // an address that is given at the end of the text belongs to links before it
    const anew = whole && Object.keys(tokens.links).length > 0;
    let same = 0;
    while (!anew && same < this.#blocks.length && this.#blocks[same].raw === tokens[same]?.raw) same += 1;
    if (!same) this.element.replaceChildren();
    for (const { element } of this.#blocks.splice(same)) element.remove();
    for (const token of tokens.slice(same)) {
      const element = make("div", { className: "block" }, dressed(marked.parser([token])));
      this.#blocks.push({ raw: token.raw, element });
      if (element.childNodes.length) this.element.append(element);
    }
  }
}

function dressed(html) {
  const found = sanitize(html, RULES);
  for (const link of found.querySelectorAll("a[href]")) Object.assign(link, { rel: "noopener noreferrer", target: "_blank" });
  for (const table of found.querySelectorAll("table")) {
    const around = make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Table" });
    table.replaceWith(around);
    around.append(table);
  }
  for (const code of found.querySelectorAll("pre")) code.replaceWith(codeBlock(code.textContent, code.dataset.language));
  // the page's own headings are above those of an answer
  for (const head of found.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const level = Math.min(6, Number(head.tagName[1]) + 2);
    head.replaceWith(make(`h${level}`, {}, ...head.childNodes));
  }
  return found;
}

/** Return a block of code with a button that copies it. */
export function codeBlock(text, language) {
  const label = language ? `Code, ${language}` : "Code";
  const code = make("pre", { tabIndex: 0, role: "region", "aria-label": label }, make("code", {}, text));
  const bar = make("div", { className: "bar" }, make("span", {}, language || "code"), copier(() => text, "Copy the code"));
  return make("div", { className: "code" }, bar, code);
}
