// @ts-check
/** What was asked, as it stands above its answer; it can be changed and asked again. */

import { button, element } from "./dom.js";

/** @typedef {import("./conversation.js").Turn} Turn */

const LINES = 6;

/** The text of a turn; `show` after it changed. */
export class Asked {
  /**
   * @param {Turn} turn
   * @param {(prompt: string) => void} ask called with the changed text
   */
  constructor(turn, ask) {
    this._turn = turn;
    this._ask = ask;
    this._shown = "";
    this._text = turn.chat ? element("p") : element("span", { class: "prompt" });
    this._unfold = button("", () => this._showAll());
    this._unfold.className = "unfold";
    this._edit = button("Edit", () => this.edit());
    this._edit.className = "edit";
    this._field = element("textarea", { rows: 2, "aria-label": turn.chat ? "Your message" : "The text" });
    this._warning = element("p", { class: "warning", hidden: true }, "What follows this turn will be forgotten.");
    this._form = this._makeForm();
    this.element = turn.chat
      ? element("div", { class: "asked-part" },
        element("div", { class: "asked" }, this._text), this._edit, this._form)
      : element("div", { class: "prompt-part" },
        element("div", { class: "prompt-tools" }, this._unfold, this._edit), this._form, this._text);
    this.show();
  }

  /** Show the turn's text as it is now. */
  show() {
    const { prompt, chat } = this._turn;
    if (this._shown === prompt) return;
    this._shown = prompt;
    this._text.textContent = prompt;
    if (chat) return;
    // Of a long text that the model goes on with, the end is what matters.
    const lines = prompt.split("\n");
    const hidden = lines.length > LINES + 2 ? lines.length - LINES : 0;
    this._unfold.hidden = hidden === 0;
    this._unfold.textContent = `Show the ${hidden} lines before`;
    if (hidden > 0) this._text.textContent = lines.slice(hidden).join("\n");
  }

  /** @param {boolean} followed whether other turns come after it */
  setFollowed(followed) {
    this._warning.hidden = !followed;
  }

  /** @param {string} [text] what was made of it before */
  edit(text = this._turn.prompt) {
    this._setEditing(true);
    this._field.value = text;
    this._fit();
    this._field.focus();
    this._field.setSelectionRange(text.length, text.length);
  }

  _makeForm() {
    const form = element("form", { class: "editor", hidden: true, "aria-label": "Edit" },
      this._field, this._warning, element("span", { class: "editor-tools" },
        button("Cancel", () => this._cancel()), element("button", { type: "submit", class: "send" }, "Ask again")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._submit();
    });
    this._field.addEventListener("input", () => this._fit());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation(); // here it stops no answer
        this._cancel();
      } else if (event.target === this._field && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this._submit();
      }
    });
    return form;
  }

  _submit() {
    const text = this._field.value;
    if (!text.trim()) return;
    this._setEditing(false);
    this._ask(text);
  }

  _cancel() {
    this._setEditing(false);
    this._edit.focus();
  }

  /** @param {boolean} editing */
  _setEditing(editing) {
    this._form.hidden = !editing;
    this._edit.hidden = editing;
    this._text.hidden = editing;
    this.element.classList.toggle("editing", editing);
  }

  _showAll() {
    this._text.textContent = this._turn.prompt;
    this._unfold.hidden = true;
    this._edit.focus();
  }

  _fit() {
    this._field.style.height = "auto";
    this._field.style.height = `${Math.min(this._field.scrollHeight + 2, window.innerHeight / 2)}px`;
  }
}
