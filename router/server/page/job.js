// Job: one request in the hands of the service, followed to its end whatever the connection does.

import { ApiError } from "./api.js";

/**
 * @typedef {"queued" | "loading" | "running" | "done" | "failed" | "cancelled"} State
 *
 * @typedef {object} Facts how the pictures were made
 * @property {string} instance
 * @property {string} backend
 * @property {string} model
 * @property {number[]} seeds
 * @property {Record<string, any>} parameters
 * @property {{original: string, prompt: string, cached: boolean} | null} [enhancement]
 * @property {string[]} adjustments
 * @property {string[]} notes
 * @property {Record<string, number>} timings
 * @property {{index: number, message: string}[]} errors
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {State} state
 * @property {number | null} position while it is queued; 1 is next
 * @property {{picture: number, index: number, total: number} | null} step the last one made
 * @property {{image_url: string, index: number, seed: number}[]} images
 * @property {Facts | null} meta
 * @property {{message: string, param: string | null} | null} error
 *
 * `preview` is the base64 text of a PNG file.
 * @typedef {{kind: "queued", position: number | null} | {kind: "running"}
 *   | {kind: "loading", elapsed_s?: number, expected_s?: number | null}
 *   | {kind: "step", picture: number, index: number, total: number, preview: string | null}
 *   | {kind: "lost", message: string} | {kind: "ended", job: Job}} News
 */

const ENDED = new Set(["done", "failed", "cancelled"]);
const MOST_STREAMS = 3;
const RETRIES_S = [1, 2, 4, 8];

/** How many jobs are followed step by step just now. */
let streams = 0;

/**
 * What becomes of a job. The last news is `ended`; a broken connection is `lost`, and tried again.
 *
 * A browser opens six connections to a service over HTTP/1.1, and each stream holds one. So that
 * `cancel` always gets through, the jobs beyond the first few are only looked at, second by second.
 * @param {import("./api.js").Api} api
 * @param {string} id
 * @returns {AsyncGenerator<News, void>}
 */
export async function* follow(api, id) {
  for (let tries = 0; ; tries += 1) {
    try {
      const isStreamed = streams < MOST_STREAMS && !document.hidden;
      for await (const news of isStreamed ? stream(api, id) : glance(api, id)) {
        tries = 0;
        yield news;
        if (news.kind === "ended") return;
      }
    } catch (error) {
      if (!(error instanceof ApiError) || !error.passes) throw error;
      yield { kind: "lost", message: error.message };
    }
    await seconds(RETRIES_S[Math.min(tries, RETRIES_S.length - 1)]);
  }
}

/**
 * @param {import("./api.js").Api} api
 * @param {string} id
 * @returns {AsyncGenerator<News, void>}
 */
async function* stream(api, id) {
  streams += 1;
  try {
    for await (const { kind, data } of api.events(id)) {
      yield ENDED.has(kind) ? { kind: "ended", job: data } : { kind, ...data };
    }
  } finally {
    streams -= 1;
  }
}

/**
 * @param {import("./api.js").Api} api
 * @param {string} id
 * @returns {AsyncGenerator<News, void>}
 */
async function* glance(api, id) {
  const job = await api.job(id);
  const { state, position, step } = job;
  if (ENDED.has(state)) yield { kind: "ended", job };
  else if (state === "queued") yield { kind: state, position };
  else if (step) yield { kind: "step", ...step, preview: null };
  else if (state === "loading") yield { kind: state };
  else yield { kind: "running" };
}

/**
 * Hands a job in; where the reply is lost, once more under the same token.
 * @param {import("./api.js").Api} api
 * @param {Record<string, unknown>} fields
 * @returns {Promise<Job>}
 */
export async function submit(api, fields) {
  const token = newToken();
  try {
    return await api.submit(fields, token);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 0) throw error;
    await seconds(1);
    return api.submit(fields, token);
  }
}

/**
 * The pictures of a job that is done; asked for until they come.
 * @param {import("./api.js").Api} api
 * @param {Job} job
 * @returns {Promise<{index: number, seed: number, blob: Blob}[]>}
 */
export function collect(api, { images }) {
  const one = async (/** @type {string} */ url) => {
    for (let tries = 0; ; tries += 1) {
      try {
        return await api.picture(url);
      } catch (error) {
        if (!(error instanceof ApiError) || !error.passes) throw error;
        await seconds(RETRIES_S[Math.min(tries, RETRIES_S.length - 1)]);
      }
    }
  };
  return Promise.all(
    images.map(async ({ image_url, index, seed }) => ({ index, seed, blob: await one(image_url) })),
  );
}

function newToken() {
  const numbers = crypto.getRandomValues(new Uint32Array(4)); // `randomUUID` is for https alone
  return [...numbers].map((number) => number.toString(16).padStart(8, "0")).join("");
}

/** @param {number} count */
function seconds(count) {
  return new Promise((resolve) => setTimeout(resolve, count * 1000));
}
