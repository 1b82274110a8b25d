// The page: form, feed and viewer around the service's public API.

import { Api, ApiError } from "./api.js";
import { byId, say } from "./element.js";
import { Feed } from "./feed.js";
import { accept } from "./field.js";
import { Form } from "./form.js";
import { Instances, serviceLine } from "./instances.js";
import { submit } from "./job.js";
import { Key } from "./key.js";
import { Larger, paints, runOf } from "./larger.js";
import { Model } from "./model.js";
import { Store } from "./store.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./store.js").Run} Run */

const POLL_MS = 4000;
const PAUSE_MS = 350; // after the last key, before the service is asked who could serve
const PHONE = matchMedia("(max-width: 60rem)");

const api = new Api(new Key());
const instances = new Instances();
const form = new Form(() => askSoon(), api);
const viewer = new Viewer({
  again: (run, seed) => useAgain({ ...run, fields: { ...run.fields, seed, num_images_per_prompt: 1 } }),
  start: (blob) => form.source.take(blob),
  larger: (run, blob) => larger.make(run, blob),
  remove: (run, index) => feed.removePicture(run, index),
});
const feed = new Feed(api, await Store.open(), {
  open: (run, index) => viewer.open(feed.runs, run, index),
  again: (run) => useAgain(run),
});
const larger = new Larger(api, (run) => feed.add(run));
const generate = byId("generate", HTMLButtonElement);
const settings = byId("settings", HTMLDetailsElement);
const service = byId("service", HTMLButtonElement);
const route = byId("route", HTMLElement);

/** @type {Record<string, string>} */
let rejections = {};
let asking = new AbortController();
let pause = 0;
let isPolling = false; // a call may wait for the key

/** Shows how the service is; again and again while somebody looks. */
async function poll() {
  if (isPolling) return;
  isPolling = true;
  try {
    const { models, limits, default_model, enhancer } = await api.capabilities();
    form.offer(
      models.filter(paints).map((model) => new Model(model, limits)),
      default_model,
      enhancer,
    );
    larger.offer(models);
    const all = models.flatMap((model) => model.instances);
    instances.show("everyone", all);
    showInstances();
    service.textContent = serviceLine(all);
    service.classList.remove("bad");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    service.textContent = error.message;
    service.classList.add("bad");
  } finally {
    isPolling = false;
  }
}

/** Of the model that is chosen, with what each makes of the request as it stands. */
function showInstances() {
  instances.show("instances", form.model?.instances ?? [], rejections);
}

/** Asks, when the form rests, who would serve what it holds. */
function askSoon() {
  clearTimeout(pause);
  asking.abort();
  pause = setTimeout(ask, PAUSE_MS);
}

async function ask() {
  const fields = form.read();
  rejections = {};
  route.textContent = "";
  if (!fields.prompt && !form.source.isThere) return showInstances();
  asking = new AbortController();
  try {
    const found = await api.explain({ ...fields, ...(await form.source.blanks()) }, asking.signal);
    rejections = found.rejections;
    say(route, found.error ? found.error.message : `${found.candidates[0]} will make it.`);
  } catch (error) {
    if (error instanceof ApiError && error.status >= 400) say(route, error.message);
    else if (!(error instanceof ApiError || asking.signal.aborted)) throw error;
  }
  showInstances();
}

/** @param {Event} event */
async function onSubmit(event) {
  event.preventDefault();
  if (generate.disabled) return;
  accept();
  byId("form-error", HTMLElement).replaceChildren();
  generate.disabled = true;
  try {
    await send();
    form.seed.next();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    form.refuse(error);
  } finally {
    generate.disabled = false;
  }
}

async function send() {
  const fields = form.read();
  const source = form.source.kept;
  const job = await submit(api, { ...fields, ...(await form.source.pictures()) });
  await feed.add(runOf(job.id, fields, source));
}

/** @param {Run} run */
function useAgain({ fields, facts, source }) {
  const { num_images_per_prompt, seed } = fields;
  return form.fill(
    { ...facts?.parameters, ...fields, num_images_per_prompt, seed: seed ?? facts?.parameters.seed },
    source,
  );
}

function foldSettings() {
  settings.open = !PHONE.matches;
}

form.element.addEventListener("submit", onSubmit);
document.addEventListener("keydown", (event) => {
  const isWanted = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (isWanted && !document.querySelector("dialog[open]")) form.element.requestSubmit();
});
document.addEventListener("visibilitychange", () => document.hidden || poll());
PHONE.addEventListener("change", foldSettings);
setInterval(() => document.hidden || poll(), POLL_MS);
foldSettings();
await Promise.all([poll(), feed.restore()]);
document.documentElement.dataset.ready = "true";
