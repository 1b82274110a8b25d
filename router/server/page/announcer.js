// Announcer: what a screen reader should say although the focus is elsewhere.

import { byId } from "./element.js";

/** @param {string} sentence */
export function announce(sentence) {
  const place = byId("announcer", HTMLElement);
  place.textContent = "";
  requestAnimationFrame(() => (place.textContent = sentence)); // so that the same words are said again
}
