// Elements: found, made and copied from templates. Text is only ever set as text.

/**
 * The element of that id.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind what it must be, such as HTMLInputElement
 * @returns {T}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return found;
}

/**
 * The first element within `parent` that the selector fits.
 * @template {Element} T
 * @param {ParentNode} parent
 * @param {string} selector
 * @param {new () => T} kind
 * @returns {T}
 */
export function within(parent, selector, kind) {
  const found = parent.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} at ${selector}`);
  return found;
}

/**
 * A new element with properties and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<Omit<HTMLElementTagNameMap[Tag], "style" | "dataset">>} properties
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * A copy of what a template holds.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function copyOf(id) {
  const first = byId(id, HTMLTemplateElement).content.firstElementChild;
  return /** @type {HTMLElement} */ (first?.cloneNode(true));
}

/**
 * Shows a sentence of the API: names stand in backticks there, and in a face of their own here.
 * @param {Element} place
 * @param {string} sentence
 */
export function say(place, sentence) {
  const parts = sentence.split("`");
  place.replaceChildren(...parts.map((part, index) => (index % 2 ? element("code", {}, part) : part)));
}
