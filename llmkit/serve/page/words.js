// Elements, and numbers and times as words. Whatever comes from a server or a model is set as text, never as HTML.

/** Return an element with properties and children, which are elements or texts. */
export function make(kind, properties = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Return a button that does something. */
export function button(text, act, properties = {}) {
  const made = make("button", { type: "button", ...properties }, text);
  made.addEventListener("click", act);
  return made;
}

/** Return US dollars as the usage page writes them: cents, and below a dollar as many digits as it needs. */
export function usd(amount) {
  if (amount === null || amount === undefined) return "unknown";
  const size = Math.abs(amount);
  const digits = size > 0 && size < 1 ? Math.max(4, 1 - Math.floor(Math.log10(size))) : 2;
  const [dollars, cents] = size.toFixed(Math.min(digits, 100)).split(".");
  const grouped = dollars.replace(/\B(?=(\d{3})+$)/g, ",");
  return `${amount < 0 ? "-" : ""}$${grouped}.${cents.replace(/0+$/, "").padEnd(2, "0")}`;
}

export const count = (number) => number.toLocaleString("en-US");

/** Return a number in three digits or so: 999, 1.23k, 45M. */
export function short(number) {
  const names = ["", "k", "M", "B", "T"];
  let place = 0;
  while (Math.round(number) >= 1000 && place < names.length - 1) {
    number /= 1000;
    place += 1;
  }
  return place ? `${Number(number.toPrecision(3))}${names[place]}` : String(number);
}

/** Return a name that may be broken after each of its parts. */
export function breakable(name) {
  return name.split(/(?<=[/:_-])/).flatMap((part) => [part, make("wbr")]);
}

/** Return a duration in three digits, in milliseconds if it is below a second. */
export function seconds(duration) {
  if (duration < 1) return `${Math.round(duration * 1000)} ms`;
  return `${duration.toFixed(Math.max(0, 2 - Math.floor(Math.log10(duration))))} s`;
}

/** Return the local date of a moment, as ISO has it; with its time unless that is left out. */
export function moment(at, { withTime = true } = {}) {
  const date = new Date(at);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString();
  return withTime ? local.slice(0, 16).replace("T", " ") : local.slice(0, 10);
}

/** Return a button that copies what *text* returns. */
export function copier(text, label) {
  const made = button("Copy", async () => {
    made.textContent = (await copied(text())) ? "Copied" : "Not copied";
    setTimeout(() => { made.textContent = "Copy"; }, 1500);
  }, { className: "copy", "aria-label": label });
  return made;
}

async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  // browsers have a clipboard for scripts at https and localhost only
  const area = make("textarea", { value: text, className: "hidden" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
