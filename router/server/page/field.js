// Fields: what is wrong with one, beside it; and why one is of no use now.

import { element, say } from "./element.js";

/** Names of the API that stand elsewhere on the page. */
const PLACES = { height: "size", width: "size" };

/**
 * The element around a field, by the API's name for it.
 * @param {string} name
 * @returns {HTMLElement | null}
 */
function placeOf(name) {
  const place = /** @type {Record<string, string>} */ (PLACES)[name] ?? name.split(".")[0];
  return document.querySelector(`[data-field="${CSS.escape(place)}"]`);
}

/**
 * What can be changed in a field; not what is in a field within it.
 * @param {HTMLElement} place
 */
function controlsOf(place) {
  const all = /** @type {NodeListOf<HTMLInputElement>} */ (
    place.querySelectorAll("input, textarea, select, button")
  );
  return [...all].filter((control) => control.closest("[data-field]") === place);
}

/**
 * A line of text at a field's end, made once and described by its controls.
 * @param {HTMLElement} place
 * @param {"error" | "why"} kind
 */
function lineOf(place, kind) {
  const id = `${place.dataset.field}-${kind}`;
  let line = document.getElementById(id);
  if (!line) {
    line = element("p", { id, className: kind });
    place.append(line);
    for (const control of controlsOf(place)) {
      const described = control.getAttribute("aria-describedby");
      control.setAttribute("aria-describedby", described ? `${described} ${id}` : id);
    }
  }
  return line;
}

/**
 * Shows what is wrong beside the field, and moves there.
 * @param {string} name
 * @param {string} sentence
 * @returns {boolean} whether the page has that field, and it can be seen
 */
export function refuse(name, sentence) {
  const place = placeOf(name);
  if (!place || place.closest("[hidden]")) return false;
  const details = place.closest("details");
  if (details) details.open = true;
  say(lineOf(place, "error"), sentence);
  const controls = controlsOf(place).filter((control) => !control.disabled && control.type !== "range");
  controls.forEach((control) => control.setAttribute("aria-invalid", "true"));
  (controls.find((control) => control.type !== "radio" || control.checked) ?? controls[0])?.focus();
  place.scrollIntoView({ block: "nearest" });
  return true;
}

/** Takes everything away that `refuse` showed. */
export function accept() {
  document.querySelectorAll(".field > .error").forEach((line) => line.replaceChildren());
  document.querySelectorAll("[aria-invalid]").forEach((control) => control.removeAttribute("aria-invalid"));
}

/**
 * Disables a field and says why; an empty reason enables it.
 * @param {string} name
 * @param {string} reason
 */
export function disable(name, reason) {
  const place = placeOf(name);
  if (!place || (!reason && !place.classList.contains("off"))) return;
  place.classList.toggle("off", reason !== "");
  controlsOf(place).forEach((control) => (control.disabled = reason !== ""));
  if (reason || document.getElementById(`${place.dataset.field}-why`)) say(lineOf(place, "why"), reason);
}
