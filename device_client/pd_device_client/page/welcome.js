// @ts-check
/** The start page: what happens here, and texts to begin with. */

import { Demonstration } from "./demonstration.js";
import { button, byId, element } from "./dom.js";
import { CHAT_EXAMPLES, TEXT_EXAMPLES } from "./examples.js";

/** @typedef {import("./api.js").Json} Json */

/** Shown while nothing was asked. */
export class Welcome {
  /** @param {(prompt: string) => void} ask */
  constructor(ask) {
    this._ask = ask;
    this._section = byId("welcome", HTMLElement);
    this._text = byId("welcome-text", HTMLElement);
    this._examples = byId("examples", HTMLElement);
    this._demonstration = new Demonstration();
    this._kind = "";
  }

  /** @param {boolean} shown */
  setShown(shown) {
    if (!shown) this._demonstration.stop();
    else if (this._section.hidden) this._demonstration.play();
    this._section.hidden = !shown;
  }

  /**
   * Say what this device does.
   * @param {Json} known its state
   * @param {boolean} chat
   */
  show(known, chat) {
    const alone = known.settings.mode === "device-only" || !known.cloud?.address;
    const kind = JSON.stringify([chat, alone, known.model?.name]);
    if (this._kind === kind) return;
    this._kind = kind;
    const first = chat ? "" : `${known.model?.name ?? "The model"} is a base model: it goes on with a text, and ` +
      "answers no questions. ";
    this._text.textContent = `${first}A cloud makes the first words at once. Meanwhile this device reads your text, ` +
      `takes over without a seam, and the cloud is free again.${alone ? " No cloud is set here at present, so this " +
      "device answers alone." : ""}`;
    this._examples.replaceChildren(...(chat ? CHAT_EXAMPLES : TEXT_EXAMPLES).map(({ title, prompt }) =>
      element("li", {}, button(title, () => this._ask(prompt)))));
  }
}
