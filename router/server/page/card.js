// Card: one run on the page, from the queue to the pictures.

import { copyOf, say, within } from "./element.js";
import { ago, counted, fileName, summary } from "./words.js";

/** @typedef {import("./store.js").Run} Run */
/** @typedef {import("./job.js").News} News */

/**
 * @typedef {object} Actions what can be done with a run
 * @property {(run: Run, index: number) => void} open
 * @property {(run: Run) => void} again
 * @property {(run: Run) => void} cancel
 * @property {(run: Run) => void} remove
 */

const NO_BREAK = "\u00a0";

/** Shows a run; `run` is replaced by `update`, never changed here. */
export class Card {
  /** @type {HTMLElement[]} */
  #tiles = [];
  /** @type {string[]} */
  #urls = [];

  /**
   * @param {Run} run
   * @param {Actions} actions
   */
  constructor(run, actions) {
    this.run = run;
    this.element = copyOf("run-template");
    this.element.id = `run-${run.id}`;
    this.cancel = within(this.element, ".cancel", HTMLButtonElement);
    this.cancel.addEventListener("click", () => actions.cancel(this.run));
    within(this.element, ".again", HTMLElement).addEventListener("click", () => actions.again(this.run));
    within(this.element, ".delete", HTMLElement).addEventListener("click", () => actions.remove(this.run));
    this.actions = actions;
    this.update(run);
  }

  /** @param {Run} run */
  update(run) {
    this.run = run;
    const prompt = `${run.fields.prompt ?? ""}` || "No prompt";
    const isUnderway = run.state === "underway";
    this.element.dataset.state = run.state;
    this.element.setAttribute("aria-label", prompt);
    this.element.setAttribute("aria-busy", `${isUnderway}`);
    within(this.element, ".prompt", HTMLElement).textContent = prompt;
    const enhanced = within(this.element, ".enhanced", HTMLElement);
    enhanced.textContent = run.facts?.enhancement?.prompt ?? "";
    enhanced.hidden = !enhanced.textContent;
    within(this.element, ".facts", HTMLElement).textContent = oneLine(summary(run));
    this.cancel.hidden = !isUnderway;
    within(this.element, ".delete", HTMLElement).hidden = isUnderway;
    this.#sayProblems();
    this.#makeTiles();
    this.tick();
  }

  /** Says how long ago it was. */
  tick() {
    const time = within(this.element, "time", HTMLTimeElement);
    time.dateTime = new Date(this.run.createdAt).toISOString();
    time.textContent = ago(this.run.createdAt);
  }

  /**
   * Shows how far the service is.
   * @param {Exclude<News, {kind: "ended"}>} news
   */
  progress(news) {
    if (news.kind === "step") {
      const { picture, index, total, preview } = news;
      this.#show(this.#tiles[picture], `Step ${index} of ${total}`, index / total, preview);
      return;
    }
    const words = wordsOf(news);
    for (const tile of this.#tiles) this.#show(tile, words);
  }

  /** The pictures' addresses are let go with the card. */
  remove() {
    this.#urls.forEach((url) => URL.revokeObjectURL(url));
    this.element.remove();
  }

  #sayProblems() {
    const place = within(this.element, ".error", HTMLElement);
    const failed = this.run.facts?.errors ?? [];
    say(place, [this.run.failure, ...failed.map(({ message }) => message)].filter(Boolean).join(" "));
    place.hidden = !place.textContent;
  }

  /** A tile for each picture that is awaited or there. */
  #makeTiles() {
    const { run } = this;
    this.#urls.splice(0).forEach((url) => URL.revokeObjectURL(url));
    const wanted = run.state === "underway" ? (run.fields.num_images_per_prompt ?? 1) : run.pictures.length;
    const list = within(this.element, ".tiles", HTMLElement);
    const { width, height } = { ...run.fields, ...run.facts?.parameters };
    list.style.setProperty("--ratio", width && height ? `${width} / ${height}` : "1");
    list.hidden = wanted === 0;
    while (this.#tiles.length > wanted) this.#tiles.pop()?.remove();
    while (this.#tiles.length < wanted) {
      const tile = copyOf("tile-template");
      const index = this.#tiles.length;
      within(tile, ".open", HTMLElement).addEventListener("click", () => this.actions.open(this.run, index));
      this.#tiles.push(tile);
      list.append(tile);
    }
    this.#tiles.forEach((tile, index) => this.#fill(tile, index));
  }

  /**
   * @param {HTMLElement} tile
   * @param {number} index
   */
  #fill(tile, index) {
    const picture = this.run.state === "underway" ? undefined : this.run.pictures[index];
    tile.classList.toggle("waits", !picture);
    within(tile, ".progress", HTMLElement).hidden = picture !== undefined;
    const open = within(tile, ".open", HTMLButtonElement);
    open.disabled = !picture;
    open.setAttribute("aria-label", `Picture ${index + 1}, not made yet`);
    if (!picture) return this.#show(tile, "Waiting");
    open.removeAttribute("aria-label"); // the picture's own text names it
    const url = URL.createObjectURL(picture.blob);
    this.#urls.push(url);
    const image = within(tile, "img", HTMLImageElement);
    image.src = url;
    image.alt = `${this.run.fields.prompt ?? "Picture"}, seed ${picture.seed}`;
    const download = within(tile, ".download", HTMLAnchorElement);
    Object.assign(download, {
      href: url,
      download: fileName(this.run, picture.seed, picture.blob),
      hidden: false,
    });
    download.setAttribute("aria-label", `Download picture ${index + 1} of ${this.run.pictures.length}`);
  }

  /**
   * @param {HTMLElement | undefined} tile
   * @param {string} words
   * @param {number} [part] of the whole, 0 to 1; left out where nobody knows
   * @param {string | null} [preview]
   */
  #show(tile, words, part, preview) {
    if (!tile) return;
    const bar = within(tile, ".progress", HTMLElement);
    within(bar, ".words", HTMLElement).textContent = words;
    bar.setAttribute("aria-valuetext", words);
    bar.classList.toggle("known", part !== undefined);
    if (part === undefined) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", `${Math.round(part * 100)}`);
    bar.style.setProperty("--part", `${(part ?? 0) * 100}%`);
    if (preview) within(tile, "img", HTMLImageElement).src = `data:image/png;base64,${preview}`;
  }
}

/** @param {Exclude<News, {kind: "ended"} | {kind: "step"}>} news */
function wordsOf(news) {
  if (news.kind === "queued") return news.position ? `Waiting, place ${news.position}` : "Waiting";
  if (news.kind === "loading") return `Loading the model${howFar(news.elapsed_s, news.expected_s)}`;
  return news.kind === "lost" ? "Connection lost; trying again" : "Starting";
}

/**
 * @param {number | undefined} elapsed seconds
 * @param {number | null | undefined} expected seconds
 */
function howFar(elapsed, expected) {
  if (!elapsed || elapsed < 1) return "";
  const about = expected ? ` of about ${Math.ceil(expected)}` : "";
  return `, ${Math.floor(elapsed)}${about} s`;
}

/**
 * Facts with dots between; a line breaks after a dot only.
 * @param {unknown[]} facts
 */
function oneLine(facts) {
  return facts.map((fact) => `${fact}`.replaceAll(" ", NO_BREAK)).join(`${NO_BREAK}· `);
}

/**
 * What a screen reader says when a run has ended.
 * @param {Run} run
 */
export function endingOf(run) {
  if (run.state === "failed") return `Failed: ${run.failure}`;
  if (run.state === "cancelled") return "Cancelled.";
  return `${counted(run.pictures.length, "picture")} ready: ${summary(run).slice(0, 2).join(", ")}.`;
}
