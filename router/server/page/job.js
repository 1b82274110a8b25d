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
 * @property {string[]} adjustments
 * @property {string[]} notes
 * @property {Record<string, number>} timings
 * @property {{index: number, message: string}[]} errors
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {State} state
 * @property {{image_url: string, index: number, seed: number}[]} images
 * @property {Facts | null} meta
 * @property {{message: string, param: string | null} | null} error
 *
 * `preview` is the base64 text of a PNG file.
 * @typedef {{kind: "queued", position: number | null} | {kind: "loading" | "running"}
 *   | {kind: "step", picture: number, index: number, total: number, preview: string | null}
 *   | {kind: "lost", message: string} | {kind: "ended", job: Job}} News
 */

const ENDED = new Set(["done", "failed", "cancelled"]);
const RETRIES_S = [1, 2, 4, 8];

/**
 * What becomes of a job. The last news is `ended`; a broken connection is `lost`, and tried again.
 * @param {import("./api.js").Api} api
 * @param {string} id
 * @returns {AsyncGenerator<News, void>}
 */
export async function* follow(api, id) {
  for (let tries = 0; ; tries += 1) {
    try {
      for await (const { kind, data } of api.events(id)) {
        tries = 0;
        if (ENDED.has(kind)) {
          yield { kind: "ended", job: data };
          return;
        }
        yield { kind, ...data };
      }
    } catch (error) {
      if (!(error instanceof ApiError) || !error.passes) throw error;
      yield { kind: "lost", message: error.message };
    }
    await seconds(RETRIES_S[Math.min(tries, RETRIES_S.length - 1)]);
  }
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
