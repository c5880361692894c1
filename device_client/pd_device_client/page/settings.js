// @ts-check
/** What the reader has chosen: kept in this browser, but for the key, which is not. */

import { byId } from "./dom.js";

/** @typedef {import("./api.js").Json} Json */
/**
 * @typedef {object} Choices
 * @property {"as-set" | "pd-device" | "device-only" | "cloud-only"} mode
 * @property {string} paceS numbers as they were written; "": as the device is set
 * @property {string} ttftS
 * @property {string} maxTokens
 * @property {string} system what the model is told before everything else
 * @property {string} temperature
 * @property {string} topP
 * @property {string} seed
 * @property {boolean} tint
 * @property {boolean} timeline
 * @property {"" | "markdown" | "plain"} format
 * @property {boolean} keepChats
 */

const STORED_AS = "pd-device.settings";
/** @type {Choices} */
const DEFAULTS = {
  mode: "as-set", paceS: "", ttftS: "", maxTokens: "", system: "", temperature: "", topP: "", seed: "",
  tint: true, timeline: true, format: "", keepChats: false,
};

/** The settings, their dialog, and the switches elsewhere on the page. */
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
    /** The mode to go back to when the switch is turned off. @type {Choices["mode"]} */
    this._before = "as-set";
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
    // The switch is another handle on the mode, not a choice of its own.
    this._switch.addEventListener("change", () => {
      if (this._switch.checked) this._before = this.choices.mode;
      this._field("mode").value = this._switch.checked ? "device-only" : this._before;
      this._read();
    });
    this._field("keepChats").addEventListener("change", () => this._read()); // outside of the form
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

  /** Whether nothing may leave this device. */
  get localOnly() {
    return this.choices.mode === "device-only";
  }

  /**
   * What a request carries of these choices, beside its messages.
   * @returns {Json}
   */
  request() {
    const { choices } = this;
    /** @type {Json} */
    const pd = { events: true };
    if (choices.mode !== "as-set") pd.mode = choices.mode;
    if (this.localOnly) pd.local_only = true; // its later turns stay here too
    // A speed in words is told by its unit.
    if (choices.paceS.endsWith("wpm")) pd.reading_wpm = Number.parseFloat(choices.paceS);
    else if (choices.paceS) pd.pace_s = Number(choices.paceS);
    if (choices.ttftS) pd.ttft_s = Number(choices.ttftS);
    /** @type {Json} */
    const body = { pd };
    if (choices.maxTokens) body.max_tokens = Number(choices.maxTokens);
    if (choices.temperature) body.temperature = Number(choices.temperature);
    if (choices.topP) body.top_p = Number(choices.topP);
    if (choices.seed) body.seed = Number(choices.seed);
    return body;
  }

  /**
   * A model that goes on with a text is told nothing before it.
   * @param {boolean} chat
   */
  setKind(chat) {
    this._field("system").disabled = !chat;
    byId("no-system", HTMLElement).hidden = chat;
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
    this._switch.checked = this.localOnly;
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
    this._switch.checked = this.localOnly;
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
  // Written by an older page. What was to stay on this device stays there.
  if (stored?.localOnly === true) stored.mode = "device-only";
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
