// @ts-check
/** How the device stands: asked for now and then, shown at the top and in the settings. */

import { ApiError } from "./api.js";
import { byId, element } from "./dom.js";
import { TroubleList } from "./trouble_list.js";

/** @typedef {import("./api.js").Json} Json */

const SOON_MS = 1500;
const LATER_MS = 15_000;

/** @type {Record<string, string>} */
const MODES = {
  "pd-device": "both, one after the other",
  "device-only": "only this device",
  "cloud-only": "only the cloud",
};

/** Asks and shows; `onChange` after every answer. */
export class DeviceState {
  /**
   * @param {import("./api.js").Api} api
   * @param {{localOnly: () => boolean, onChange: () => void, onKeyNeeded: () => void,
   *   onCloud: (cloud: Json | undefined) => void}} page
   */
  constructor(api, page) {
    this._api = api;
    this._page = page;
    /** @type {Json | null} the last answer */
    this.known = null;
    /** @type {string} why there is none, in words */
    this.problem = "";
    /** Whether the device is not there at all. */
    this.gone = false;
    /** Whether its model answers messages; a base model goes on with a text. Stays while it is not reached. */
    this.chat = true;
    this._details = new TroubleList({});
    byId("cloud-detail", HTMLElement).append(this._details.element);
    /** @type {number | undefined} */
    this._timer = undefined;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.ask();
    });
  }

  /** Whether the device can answer. */
  get ready() {
    return this.known?.serving === true;
  }

  /** Ask now, and again later. */
  async ask() {
    clearTimeout(this._timer);
    try {
      // Who wants nothing to leave this device wants no cloud asked how it is, either.
      this.known = await this._api.status({ fresh: !this._page.localOnly() });
      this.problem = "";
      this.gone = false;
      this.chat = this.known?.model?.chat ?? this.chat;
    } catch (error) {
      this.known = null;
      this.problem = error instanceof Error ? error.message : String(error);
      this.gone = error instanceof ApiError && error.unreached;
      if (error instanceof ApiError && error.status === 401) this._page.onKeyNeeded();
    }
    this.show();
    this._page.onChange();
    const wait = this.ready ? LATER_MS : SOON_MS;
    if (!document.hidden) this._timer = setTimeout(() => this.ask(), wait);
  }

  /** Show what is known. */
  show() {
    if (!this.known && !this.problem) return; // nothing was answered yet
    const [model, cloud] = [this.known?.model, this.known?.cloud];
    const state = this.known?.state ?? "unreachable";
    /** @type {Record<string, string>} */
    const words = {
      ready: "ready", loading: "loading", asleep: "asleep", waking: "waking", failed: "failed to load",
      closed: "closing",
    };
    showState("model-state", model?.engine ?? model?.name ?? (this.known ? "none yet" : "not there"),
      this.known ? (words[state] ?? state) : "no answer", state);
    this._showCloud(cloud);
    if (!this.known) return;
    const { mode } = this.known.settings;
    byId("default-mode", HTMLElement).textContent = MODES[mode] ?? "";
    this._showModes(mode, cloud?.address);
  }

  /** @param {Json | undefined} cloud */
  _showCloud(cloud) {
    /** @type {Record<string, string>} */
    const words = {
      connected: "connected", unreachable: "not reachable", mismatch: "another model", resting: "left alone",
      unknown: "not asked yet", none: "",
    };
    const unused = this._page.localOnly() && cloud?.address;
    const state = unused ? "unused" : (cloud?.state ?? "unknown");
    const told = unused ? "not used" : (words[cloud?.state] ?? "");
    showState("cloud-state", cloud?.address ?? (cloud ? "none" : "unknown"), told, state);
    this._page.onCloud(cloud);
    this._details.show(cloudDetails(cloud));
  }

  /**
   * A choice that this device cannot follow is not offered.
   * @param {string} mode the device's own
   * @param {string | null} address of its cloud
   */
  _showModes(mode, address) {
    const alone = mode === "device-only" || !address;
    for (const field of document.querySelectorAll("#modes input")) {
      if (field instanceof HTMLInputElement) {
        field.disabled = alone && ["pd-device", "cloud-only"].includes(field.value);
      }
    }
  }
}

/**
 * What is wrong with the cloud, if anything: a sentence, and what it was made of.
 * @param {Json | undefined} cloud
 * @returns {import("./troubles.js").Trouble[]}
 */
function cloudDetails(cloud) {
  /** @type {Record<string, string>} */
  const sentences = {
    unreachable: "The cloud does not answer; this device answers alone meanwhile.",
    resting: "The cloud failed several times in a row, so it is left alone for a while.",
    mismatch: "The cloud runs another model, so no answer can be handed over.",
  };
  if (cloud?.detail) return [{ words: sentences[cloud.state] ?? "The cloud is of no use now.", details: [cloud.detail] }];
  if (cloud && !cloud.settable) return [{ words: "It is set where this device is started (--cloud).", details: [] }];
  return [];
}

/**
 * @param {string} id
 * @param {string} name
 * @param {string} words
 * @param {string} state for its colour; the words say the same
 */
function showState(id, name, words, state) {
  const shown = byId(id, HTMLElement);
  shown.dataset.state = state;
  shown.title = words ? `${name}: ${words}` : name;
  shown.querySelector("dd")?.replaceChildren(element("span", {}, name),
    ...(words ? [" ", element("small", {}, words)] : []));
}
