// @ts-check
/** What the reader has chosen: kept in this browser, but for the key, which is not. */

import { byId } from "./dom.js";

/** @typedef {import("./api.js").Json} Json */
/**
 * @typedef {object} Choices
 * @property {"as-set" | "pd-device" | "device-only" | "cloud-only"} mode
 * @property {boolean} localOnly
 * @property {string} paceS numbers as they were written; "": as the device is set
 * @property {string} ttftS
 * @property {string} maxTokens
 * @property {string} temperature
 * @property {string} seed
 * @property {boolean} tint
 * @property {boolean} timeline
 * @property {"" | "markdown" | "plain"} format
 */

const STORED_AS = "pd-device.settings";
/** @type {Choices} */
const DEFAULTS = {
  mode: "as-set", localOnly: false, paceS: "", ttftS: "", maxTokens: "", temperature: "", seed: "",
  tint: true, timeline: true, format: "",
};

/** The settings, their dialog, and the switch beside the text field. */
export class Settings {
  /**
   * @param {(key: string) => void} onKey called when a key was typed
   * @param {() => void} onChange
   */
  constructor(onKey, onChange) {
    this._dialog = byId("settings", HTMLDialogElement);
    this._form = byId("settings-form", HTMLFormElement);
    this._switch = byId("local-only", HTMLInputElement);
    this._onChange = onChange;
    this.choices = DEFAULTS;
    this._take(load());
    byId("open-settings", HTMLButtonElement).addEventListener("click", () => this.open());
    this._form.addEventListener("change", () => {
      onKey(this._field("key").value.trim());
      this._read();
    });
    this._form.addEventListener("submit", (event) => {
      if (!this._form.reportValidity()) event.preventDefault();
    });
    this._switch.addEventListener("change", () => {
      this._field("localOnly").checked = this._switch.checked;
      this._read();
    });
    // What was typed and is no value holds nowhere, so it must not stand there either.
    this._dialog.addEventListener("close", () => this._show());
    // Two pages of one device have one set of choices: else the page that was opened first would
    // undo what was chosen in the other, "only on this device" too.
    window.addEventListener("storage", (event) => {
      if (event.key !== null && event.key !== STORED_AS) return;
      this._take(load());
      this._onChange();
    });
    // A click beside the sheet closes it, as Esc does.
    this._dialog.addEventListener("click", (event) => {
      if (event.target === this._dialog) this._dialog.close();
    });
  }

  /** @param {string} [field] the one to begin at */
  open(field) {
    this._dialog.showModal();
    if (field) this._field(field).focus();
  }

  get isOpen() {
    return this._dialog.open;
  }

  /**
   * What a request carries of these choices.
   * @returns {Json}
   */
  request() {
    const { choices } = this;
    /** @type {Json} */
    const pd = { events: true };
    const mode = choices.localOnly ? "device-only" : choices.mode;
    if (mode !== "as-set") pd.mode = mode;
    if (choices.paceS) pd.pace_s = Number(choices.paceS);
    if (choices.ttftS) pd.ttft_s = Number(choices.ttftS);
    /** @type {Json} */
    const body = { pd };
    if (choices.maxTokens) body.max_tokens = Number(choices.maxTokens);
    if (choices.temperature) body.temperature = Number(choices.temperature);
    if (choices.seed) body.seed = Number(choices.seed);
    return body;
  }

  /** @param {string} name @returns {HTMLInputElement} */
  _field(name) {
    return /** @type {HTMLInputElement} */ (this._form.elements.namedItem(name));
  }

  /**
   * Let choices hold, but for those that are no more.
   * @param {Choices} choices
   */
  _take(choices) {
    this.choices = choices;
    this._show();
    this.choices = this._collected();
    this._show();
  }

  _show() {
    for (const [name, value] of Object.entries(this.choices)) {
      const field = this._field(name);
      if (typeof value === "boolean") field.checked = value;
      else field.value = value;
    }
    this._switch.checked = this.choices.localOnly;
  }

  /** @returns {Choices} */
  _collected() {
    const read = Object.entries(DEFAULTS).map(([name, value]) => {
      const field = this._field(name);
      if (typeof value === "boolean") return [name, field.checked];
      const valid = !(field instanceof HTMLInputElement) || field.validity.valid;
      return [name, (valid && field.value) || value]; // of buttons none may be pressed
    });
    return Object.fromEntries(read);
  }

  _read() {
    this.choices = this._collected();
    this._switch.checked = this.choices.localOnly;
    save(this.choices);
    this._onChange();
  }
}

/** @returns {Choices} */
function load() {
  let stored;
  try {
    stored = JSON.parse(localStorage.getItem(STORED_AS) ?? "{}");
  } catch {
    stored = {}; // the browser keeps nothing, or something else wrote it
  }
  const known = Object.entries(DEFAULTS).map(([name, value]) =>
    [name, typeof stored?.[name] === typeof value ? stored[name] : value]);
  return Object.fromEntries(known);
}

/** @param {Choices} choices */
function save(choices) {
  try {
    localStorage.setItem(STORED_AS, JSON.stringify(choices));
  } catch {
    // The browser keeps nothing; the choices hold until the page is closed.
  }
}
