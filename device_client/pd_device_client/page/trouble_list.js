// @ts-check
/** Troubles in the document: a sentence each, its details folded. */

import { element } from "./dom.js";

/** @typedef {import("./troubles.js").Trouble} Trouble */

/** Shows troubles; the elements stay while nothing changes, so that what was unfolded stays so. */
export class TroubleList {
  /** @param {import("./dom.js").Attributes} attributes of its element */
  constructor(attributes) {
    this.element = element("div", { ...attributes, hidden: true });
    this._shown = "";
  }

  /** @param {Trouble[]} troubles */
  show(troubles) {
    const key = JSON.stringify(troubles);
    if (key === this._shown) return;
    this._shown = key;
    this.element.hidden = troubles.length === 0;
    const open = this.element.querySelector("details[open]") !== null;
    this.element.replaceChildren(...troubles.map(({ words, details }) => {
      if (details.length === 0) return element("p", {}, words);
      return element("details", { open }, element("summary", {}, words),
        ...details.map((told) => element("p", {}, told)));
    }));
  }
}
