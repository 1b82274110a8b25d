// The service's public API, and its errors as it words them.

import { readEvents } from "./events.js";

const LOST = "The service cannot be reached; it may be restarting, or the network is down.";
const UNREADABLE = "The service answered with something that is not its own; a proxy may stand between.";

/** What the service says is wrong: one sentence, and the field it names. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string, param?: string | null, retryAfterS?: number}} facts
   *   status 0 where there was no reply
   */
  constructor(message, { status = 0, code = "", param = null, retryAfterS = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfterS = retryAfterS;
  }

  /** Whether the same call may well succeed later. */
  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Calls with the API key, where one is wanted. Every method throws `ApiError`. */
export class Api {
  /** @param {import("./key.js").Key} key */
  constructor(key) {
    this.key = key;
  }

  /** @returns {Promise<import("./model.js").CapabilitiesDocument>} */
  async capabilities() {
    return (await this.#call("GET", "/api/v1/capabilities")).json();
  }

  /**
   * What the presets stand for at this aspect ratio.
   * @param {string} model
   * @param {string} ratio such as `16:9`
   * @returns {Promise<(import("./size.js").Size & {ratio: string, preset: string})[]>}
   */
  async sizes(model, ratio) {
    const asked = new URLSearchParams({ model, aspect_ratio: ratio });
    return (await (await this.#call("GET", `/api/v1/sizes?${asked}`)).json()).sizes;
  }

  /**
   * Who would make it, and why the others would not.
   * @param {Record<string, unknown>} fields
   * @param {AbortSignal} signal
   * @returns {Promise<{candidates: string[], rejections: Record<string, string>,
   *   error: {message: string, param: string | null} | null}>}
   */
  async explain(fields, signal) {
    return (await this.#call("POST", "/api/v1/explain", { fields, signal })).json();
  }

  /**
   * Hands in a job. Called again with the same `token`, it is still one job.
   * @param {Record<string, unknown>} fields
   * @param {string} token
   * @returns {Promise<import("./job.js").Job>}
   */
  async submit(fields, token) {
    const headers = { "Idempotency-Key": token };
    return (await this.#call("POST", "/v1/jobs", { fields, headers })).json();
  }

  /**
   * @param {string} id
   * @returns {Promise<import("./job.js").Job>}
   */
  async job(id) {
    return (await this.#call("GET", `/v1/jobs/${encodeURIComponent(id)}`)).json();
  }

  /** @param {string} id */
  async cancel(id) {
    await this.#call("DELETE", `/v1/jobs/${encodeURIComponent(id)}`);
  }

  /**
   * The events of a job, until it has ended or the connection breaks.
   * @param {string} id
   * @returns {AsyncGenerator<import("./events.js").ServerEvent, void>}
   */
  async *events(id) {
    const headers = { Accept: "text/event-stream" };
    const reply = await this.#call("GET", `/v1/jobs/${encodeURIComponent(id)}/events`, { headers });
    if (!reply.body) return;
    try {
      yield* readEvents(reply.body);
    } catch (error) {
      throw error instanceof TypeError ? new ApiError(LOST) : error;
    }
  }

  /**
   * @param {string} url as a reply named it
   * @returns {Promise<Blob>}
   */
  async picture(url) {
    return (await this.#call("GET", url)).blob();
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{fields?: Record<string, unknown>, headers?: Record<string, string>, signal?: AbortSignal}} more
   * @returns {Promise<Response>}
   */
  async #call(method, path, { fields, headers = {}, signal } = {}) {
    for (;;) {
      const used = this.key.value;
      const reply = await send(path, {
        method,
        signal,
        headers: {
          ...headers,
          ...(fields ? { "Content-Type": "application/json" } : {}),
          ...this.key.header,
        },
        body: fields && JSON.stringify(fields),
      });
      if (reply.ok) return reply;
      const error = await errorOf(reply);
      if (error.status !== 401) throw error;
      if (used === this.key.value) await this.key.ask();
    }
  }
}

/**
 * @param {string} path
 * @param {RequestInit} init
 * @returns {Promise<Response>}
 */
async function send(path, init) {
  try {
    return await fetch(new URL(path, location.origin), { ...init, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(LOST);
  }
}

/**
 * @param {Response} reply
 * @returns {Promise<ApiError>}
 */
async function errorOf(reply) {
  const { status } = reply;
  try {
    const { error } = await reply.json();
    const retryAfterS = Number(reply.headers.get("Retry-After")) || 0;
    return new ApiError(error.message, { status, code: error.code, param: error.param, retryAfterS });
  } catch {
    return new ApiError(UNREADABLE, { status });
  }
}
