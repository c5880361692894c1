// @ts-check
/** The text field: Enter sends, Shift+Enter begins a line, Esc stops. */

import { byId } from "./dom.js";

const MOST_OF_THE_WINDOW = 0.4;

/** What is being written, and the buttons beside it. */
export class Composer {
  /**
   * @param {{send: (text: string) => void, stop: () => void, refused: () => void}} wishes refused:
   *   something was to be sent while the device cannot answer; the text stays
   */
  constructor(wishes) {
    this._wishes = wishes;
    this._field = byId("prompt", HTMLTextAreaElement);
    this._label = byId("prompt-label", HTMLLabelElement);
    this._send = byId("send", HTMLButtonElement);
    this._stop = byId("stop", HTMLButtonElement);
    this._running = false;
    this._ready = false;
    byId("composer", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this._submit();
    });
    this._stop.addEventListener("click", wishes.stop);
    this._field.addEventListener("input", () => this._fit());
    this._field.addEventListener("keydown", (event) => {
      // While an input method composes a character, Enter chooses it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this._submit();
    });
  }

  /** @param {boolean} chat whether the model answers, or goes on with a text */
  setKind(chat) {
    this._label.textContent = chat ? "Your message" : "Continue this text";
    this._field.placeholder = chat ? "Ask something" : "Begin a text";
    this._send.textContent = chat ? "Send" : "Continue";
    this._field.classList.toggle("as-it-is", !chat);
  }

  /** @param {boolean} ready whether the device can answer */
  setReady(ready) {
    this._ready = ready;
    this._show();
  }

  /** @param {boolean} running whether an answer is under way */
  setRunning(running) {
    this._running = running;
    this._show();
  }

  focus() {
    this._field.focus({ preventScroll: true }); // it is always in sight
  }

  /**
   * Take a text back that was not sent after all, unless the next one is being written.
   * @param {string} text
   */
  giveBack(text) {
    if (this._field.value.trim()) return;
    this._field.value = text;
    this._fit();
  }

  _submit() {
    const text = this._field.value;
    if (!text.trim() || this._running) return;
    if (!this._ready) return this._wishes.refused();
    this._field.value = "";
    this._fit();
    this._wishes.send(text);
  }

  _show() {
    const hadFocus = document.activeElement === this._send || document.activeElement === this._stop;
    this._send.hidden = this._running;
    this._stop.hidden = !this._running;
    this._send.disabled = !this._ready;
    // A button that vanishes must not take the focus along.
    if (hadFocus) (this._running ? this._stop : this._field).focus();
  }

  /** As high as its text, within reason. */
  _fit() {
    const { style } = this._field;
    style.height = "auto";
    const most = window.innerHeight * MOST_OF_THE_WINDOW;
    style.height = `${Math.min(this._field.scrollHeight + 2, most)}px`;
  }
}
