// @ts-check
/** A turn in the document: what was asked, what is answered, its timeline and its figures. */

import { element } from "./dom.js";
import { RichText } from "./rich_text.js";
import { Timeline } from "./timeline.js";
import { courseWords, figures } from "./words.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {{regenerate: () => void, goOn: () => void}} Wishes */

const PROMPT_LINES = 6;
const REDRAW_MS = 50;
const COPIED_MS = 1500;

/** Shows a turn; `update` after every change. */
export class TurnView {
  /**
   * @param {Turn} turn
   * @param {number} number of the turn, from 1
   * @param {{chat: boolean, format: "markdown" | "plain"}} look
   * @param {Wishes} wishes what its buttons ask for
   */
  constructor(turn, number, look, wishes) {
    this._turn = turn;
    this._look = look;
    this._drawn = Number.NEGATIVE_INFINITY;
    this._text = element("div", { class: "text" });
    this._rich = new RichText(this._text);
    this._course = element("p", { class: "course" });
    this._troubles = element("ul", { class: "troubles" });
    this._error = element("p", { class: "error", role: "alert", hidden: true });
    this._figures = element("dl", { class: "figures" });
    this._timeline = new Timeline();
    this._copy = button("Copy", () => this._copyText());
    this._again = button("Regenerate", wishes.regenerate);
    this._goOn = button("Go on", wishes.goOn);
    this.element = this._assembled(number);
    this.update();
  }

  /** @param {number} number */
  _assembled(number) {
    const { chat } = this._look;
    const asked = promptElement(this._turn.prompt, chat);
    const said = chat
      ? element("div", { class: "said" }, this._text)
      : element("div", { class: "document" }, asked, this._text);
    const details = element("details", { class: "more" }, element("summary", {}, "Figures"), this._figures);
    const card = element("section", { class: "card", "aria-label": "How it was made" },
      this._course, this._troubles, this._timeline.element,
      element("div", { class: "foot" }, legend(), details));
    const tools = element("div", { class: "tools", role: "group", "aria-label": "Answer" },
      this._copy, this._again, ...(chat ? [] : [this._goOn]));
    return element("article", { class: chat ? "turn" : "turn going-on", "aria-labelledby": `turn-${number}` },
      element("h2", { id: `turn-${number}`, class: "unseen" }, `Turn ${number}`),
      ...(chat ? [asked] : []), said, this._error, card, tools);
  }

  /** Show the answer as it is now. */
  update() {
    const { answer } = this._turn;
    const busy = !answer.ended;
    this.element.setAttribute("aria-busy", String(busy));
    this._rich.show(answer.text, answer.runs, this._look.format);
    for (const tool of [this._copy, this._again, this._goOn]) tool.disabled = busy;
    this._error.hidden = answer.error === null;
    this._error.textContent = answer.error?.message ?? "";
    if (busy && performance.now() - this._drawn < REDRAW_MS) return;
    this._drawn = performance.now();
    const course = courseWords(answer);
    if (this._course.textContent !== course) this._course.textContent = course;
    this._troubles.replaceChildren(...answer.troubles.map((words) => element("li", {}, words)));
    this._timeline.draw(answer);
    this._timeline.element.setAttribute("aria-label", `Timeline. ${course}`);
    if (!busy) this._showFigures();
  }

  /** Only the last turn can be made again. @param {boolean} last */
  setLast(last) {
    this._again.hidden = !last;
    this._goOn.hidden = !last;
  }

  _showFigures() {
    this._figures.replaceChildren(...figures(this._turn.answer).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }

  async _copyText() {
    const { prompt, answer } = this._turn;
    const text = this._look.chat ? answer.text : prompt + answer.text;
    let words = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      words = "Not allowed"; // by the browser, or on a page that is not from this machine
    }
    this._copy.textContent = words;
    setTimeout(() => {
      this._copy.textContent = "Copy";
    }, COPIED_MS);
  }
}

/**
 * @param {string} words
 * @param {() => void} pressed
 */
function button(words, pressed) {
  const made = element("button", { type: "button" }, words);
  made.addEventListener("click", pressed);
  return made;
}

/**
 * What was asked. Of a long text that the model goes on with, the end is what matters.
 * @param {string} prompt
 * @param {boolean} chat
 */
function promptElement(prompt, chat) {
  if (chat) return element("div", { class: "asked" }, element("p", {}, prompt));
  const lines = prompt.split("\n");
  const hidden = lines.length > PROMPT_LINES + 2 ? lines.length - PROMPT_LINES : 0;
  const made = element("span", { class: "prompt" }, lines.slice(hidden).join("\n"));
  if (hidden === 0) return made;
  const show = button(`Show the ${hidden} lines before`, () => {
    made.textContent = prompt;
    show.remove();
  });
  show.className = "unfold";
  return element("span", {}, show, made);
}

function legend() {
  return element("p", { class: "legend", "aria-hidden": "true" },
    element("span", { class: "by-cloud" }, "made by the cloud"), " ",
    element("span", { class: "by-device" }, "made by this device"));
}
