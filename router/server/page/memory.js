// Memory: small texts that the browser keeps. Where it refuses, they are forgotten and nothing breaks.

/** @typedef {"localStorage" | "sessionStorage"} Place for good, or as long as the tab */

/**
 * @param {Place} place
 * @param {string} name
 * @returns {string} empty where there is none
 */
export function recall(place, name) {
  try {
    return window[place].getItem(name) ?? "";
  } catch {
    return "";
  }
}

/**
 * @param {Place} place
 * @param {string} name
 * @param {string} text empty forgets it
 */
export function remember(place, name, text) {
  try {
    if (text) window[place].setItem(name, text);
    else window[place].removeItem(name);
  } catch {
    // cookies are blocked, or all room is taken
  }
}
