// @ts-check
/** A block of code: its language, a button that copies it, and in the margin who made which line. */

import { CopyButton } from "./copy_button.js";
import { element } from "./dom.js";

/** @typedef {import("./answer.js").Origin} Origin */
/** @typedef {import("./markdown.js").Line} Line */
/** @typedef {import("./tint.js").Tint} Tint */
/** @typedef {{language: string, lines: Line[]}} Code */
/** @typedef {{origin: Origin, lines: number}} Stretch of the margin; a line of both makers counts half each */

const LINE_EM = 1.6; // as the style sheet has it

/** Shows code; `show` again when it has grown. */
export class CodeBlock {
  /**
   * @param {Code} code
   * @param {Tint} tint
   */
  constructor(code, tint) {
    this._language = element("span", { class: "language" });
    this._margin = element("div", { class: "makers", "aria-hidden": "true" });
    this._code = element("code");
    this._pre = element("pre", { tabindex: "0", role: "region" }, this._code);
    const copy = new CopyButton("Copy code", () => this._code.textContent ?? "");
    this.element = element("div", { class: "code" },
      element("div", { class: "code-top" }, this._language, copy.element),
      element("div", { class: "code-body" }, this._margin, this._pre));
    this.show(code, tint);
  }

  /**
   * @param {Code} code
   * @param {Tint} tint
   */
  show({ language, lines }, tint) {
    this._language.textContent = language || "code";
    this._pre.setAttribute("aria-label", language ? `code, ${language}` : "code");
    if (language) this._code.dataset.language = language;
    this._code.textContent = lines.map((line) => line.text).join("\n");
    this._margin.replaceChildren(...stretches(lines, tint).map(({ origin, lines: count }) => {
      const bar = element("span", { class: `from-${origin}` });
      bar.style.height = `${count * LINE_EM}em`;
      return bar;
    }));
  }
}

/**
 * Neighbouring lines of one maker, together.
 * @param {Line[]} lines
 * @param {Tint} tint
 * @returns {Stretch[]}
 */
function stretches(lines, tint) {
  /** @type {Stretch[]} */
  const found = [];
  for (const line of lines) {
    const makers = tint.makers(line);
    for (const origin of makers) {
      const last = found.at(-1);
      if (last?.origin === origin) last.lines += 1 / makers.length;
      else found.push({ origin, lines: 1 / makers.length });
    }
  }
  return found;
}
