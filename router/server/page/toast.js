// Toast: a line about what was just done, and the way back from it.

import { announce } from "./announcer.js";
import { byId } from "./element.js";

const SHOWN_MS = 8000;

let timer = 0;

/**
 * @param {string} sentence
 * @param {() => void} undo
 */
export function offerUndo(sentence, undo) {
  const toast = byId("toast", HTMLElement);
  byId("toast-words", HTMLElement).textContent = sentence;
  byId("toast-undo", HTMLButtonElement).onclick = () => {
    toast.hidden = true;
    undo();
  };
  toast.hidden = false;
  announce(`${sentence} It can be undone.`);
  clearTimeout(timer);
  timer = setTimeout(() => (toast.hidden = true), SHOWN_MS);
}
