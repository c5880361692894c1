// @ts-check
/** The device's API, which any other client uses the same way. */

import { eventData } from "./sse.js";

const STATUS_WITHIN_MS = 20_000;

/** @typedef {Record<string, any>} Json */

/** What the device refused, or where an answer broke off. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{status?: number, code?: string | null, param?: string | null}} [facts] status 0: the
   *   device was not reached
   */
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }

  /** Whether the device is not there at all. */
  get unreached() {
    return this.status === 0;
  }
}

/** The device's endpoints, as this page may use them. */
export class Api {
  constructor() {
    /** The bearer key; kept in memory only. */
    this.key = "";
  }

  /**
   * Ask how the device stands.
   * @param {{fresh?: boolean}} [options] fresh: the device asks its cloud first
   * @returns {Promise<Json>}
   */
  async status({ fresh = false } = {}) {
    const response = await this._fetch(`/v1/pd/status${fresh ? "?fresh=true" : ""}`, {
      signal: AbortSignal.timeout(STATUS_WITHIN_MS), // a device that hangs takes the connection all the same
    });
    return response.json();
  }

  /**
   * Let the device use another cloud from now on.
   * @param {string | null} address "host:port", or null for none
   */
  async chooseCloud(address) {
    await this._fetch("/v1/pd/cloud", {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ address }),
    });
  }

  /**
   * Ask for an answer; yield its chunks as they come.
   * @param {Json} body of /v1/chat/completions
   * @param {AbortSignal} signal ends it on both sides
   * @returns {AsyncGenerator<Json, void, void>}
   */
  async *answer(body, signal) {
    const response = await this._fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, stream: true }),
      signal,
    });
    if (response.body === null) throw new ApiError("The device sent nothing.");
    try {
      for await (const data of eventData(response.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw asError(chunk.error, response.status);
        yield chunk;
      }
    } catch (error) {
      if (signal.aborted || !(error instanceof TypeError)) throw error; // of a connection: a TypeError
    }
    throw new ApiError("The answer broke off: this device went away.");
  }

  /**
   * @param {string} path
   * @param {RequestInit} options
   */
  async _fetch(path, options) {
    const headers = new Headers(options.headers);
    if (this.key) headers.set("Authorization", `Bearer ${this.key}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error; // the reader's wish
      throw new ApiError("This device does not answer. Is pd-device still running?");
    }
    if (!response.ok) {
      const told = await response.json().catch(() => ({}));
      throw asError(told.error ?? {}, response.status);
    }
    return response;
  }
}

/**
 * @param {Json} told
 * @param {number} status
 */
function asError(told, status) {
  const message = told.message ?? `the device answered with status ${status}`;
  return new ApiError(message, { status, code: told.code ?? null, param: told.param ?? null });
}
