// @ts-check
/** A turn in the document: what was asked, what is answered, its timeline and its figures. */

import { Asked } from "./asked.js";
import { CopyButton } from "./copy_button.js";
import { button, element } from "./dom.js";
import { RichText } from "./rich_text.js";
import { Timeline } from "./timeline.js";
import { TroubleList } from "./trouble_list.js";
import { failure, troubles } from "./troubles.js";
import { courseWords, figures } from "./words.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {{again: (prompt?: string) => void, goOn: () => void}} Wishes */

const REDRAW_MS = 50;

/** Shows a turn; `update` after every change. */
export class TurnView {
  /**
   * @param {Turn} turn
   * @param {number} number of the turn, from 1
   * @param {"markdown" | "plain"} format
   * @param {Wishes} wishes what its buttons ask for
   */
  constructor(turn, number, format, wishes) {
    this._turn = turn;
    this._format = format;
    this._drawn = Number.NEGATIVE_INFINITY;
    this._text = element("div", { class: "text" });
    this._rich = new RichText(this._text);
    this._thought = element("p", {});
    this._thoughts = element("details", { class: "thoughts" }, element("summary", {}, "Thoughts"), this._thought);
    this._course = element("p", { class: "course" });
    this._troubles = new TroubleList({ class: "troubles" });
    this._errors = new TroubleList({ class: "error", role: "alert" });
    this._figures = element("dl", { class: "figures" });
    this._more = element("details", { class: "more" }, element("summary", {}, "Figures"), this._figures);
    this._timeline = new Timeline();
    this.asked = new Asked(turn, (prompt) => wishes.again(prompt));
    this._copy = new CopyButton("Copy", () => (turn.chat ? "" : turn.prompt) + turn.answer.text).element;
    this._again = button("Regenerate", () => wishes.again());
    this._goOn = button("Go on", wishes.goOn);
    this.element = this._assembled(number);
    this.update();
  }

  /** @param {number} number */
  _assembled(number) {
    const { chat } = this._turn;
    const said = chat
      ? element("div", { class: "said" }, this._thoughts, this._text)
      : element("div", { class: "document" }, this.asked.element, this._text);
    const card = element("section", { class: "card", "aria-label": "How it was made" },
      this._course, this._troubles.element, this._timeline.element,
      element("div", { class: "foot" }, legend(), this._timeline.zoom, this._more));
    const tools = element("div", { class: "tools", role: "group", "aria-label": "Answer" },
      this._copy, this._again, ...(chat ? [] : [this._goOn]));
    return element("article", { class: chat ? "turn" : "turn going-on", "aria-labelledby": `turn-${number}` },
      element("h2", { id: `turn-${number}`, class: "unseen" }, `Turn ${number}`),
      ...(chat ? [this.asked.element] : []), said, this._errors.element, card, tools);
  }

  /** Show the answer as it is now. */
  update() {
    const { answer } = this._turn;
    const busy = !answer.ended;
    this.element.setAttribute("aria-busy", String(busy));
    this.asked.show();
    this._thoughts.hidden = !answer.thoughts;
    if (this._thought.textContent !== answer.thoughts) this._thought.textContent = answer.thoughts;
    this._rich.show(answer.text, answer.runs, this._format);
    for (const tool of [this._copy, this._again, this._goOn]) tool.disabled = busy;
    this._more.hidden = busy;
    this._errors.show(answer.error === null ? [] : [failure(answer.error)]);
    if (busy && performance.now() - this._drawn < REDRAW_MS) return;
    this._drawn = performance.now();
    const course = courseWords(answer);
    if (this._course.textContent !== course) this._course.textContent = course;
    this._troubles.show(troubles(answer));
    this._timeline.draw(answer);
    this._timeline.element.setAttribute("aria-label", `Timeline. ${course}`);
    this.element.classList.toggle("from-store", answer.told !== null);
    if (!busy) this._showFigures();
  }

  /** Only the last turn can be made again or gone on with. @param {boolean} last */
  setLast(last) {
    this._again.hidden = !last;
    this._goOn.hidden = !last;
    this.asked.setFollowed(!last);
  }

  _showFigures() {
    this._figures.replaceChildren(...figures(this._turn.answer).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  }
}

function legend() {
  return element("p", { class: "legend", "aria-hidden": "true" },
    element("span", { class: "by-cloud" }, "made by the cloud"), " ",
    element("span", { class: "by-device" }, "made by this device"));
}
