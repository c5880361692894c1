// @ts-check
/** The page: one conversation with one device. */

import { Announcer } from "./announcer.js";
import { Api, ApiError } from "./api.js";
import { CloudSetting } from "./cloud_setting.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { DeviceState } from "./device_state.js";
import { byId, element } from "./dom.js";
import { CHAT_EXAMPLES, TEXT_EXAMPLES } from "./examples.js";
import { Settings } from "./settings.js";
import { TurnView } from "./turn_view.js";
import { courseWords } from "./words.js";

/** @typedef {import("./conversation.js").Turn} Turn */

const NEAR_THE_END_PX = 120;

/** Wires the parts together; there is one of it. */
class Page {
  constructor() {
    this._api = new Api();
    this._conversation = new Conversation();
    /** @type {Map<Turn, TurnView>} */
    this._views = new Map();
    /** @type {AbortController | null} of the answer under way */
    this._running = null;
    this._turns = byId("turns", HTMLElement);
    this._notice = byId("notice", HTMLElement);
    this._announcer = new Announcer(byId("announcer", HTMLElement));
    this._settings = new Settings((key) => this._useKey(key), () => this._settled());
    this._composer = new Composer({ send: (text) => this._ask(text), stop: () => this._stop() });
    this._cloud = new CloudSetting(this._api, () => this._state.ask());
    this._state = new DeviceState(this._api, {
      localOnly: () => this._settings.choices.localOnly,
      onChange: () => this._stateChanged(),
      onKeyNeeded: () => this._needKey(),
      onCloud: (cloud) => this._cloud.show(cloud),
    });
    byId("new-chat", HTMLButtonElement).addEventListener("click", () => this._newChat());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this._settings.isOpen) this._stop();
    });
    this._settled();
    this._state.ask();
    this._composer.focus();
  }

  /** @param {string} prompt */
  _ask(prompt) {
    const turn = this._conversation.ask(prompt);
    const { chat } = this._state;
    const format = this._settings.choices.format || (chat ? "markdown" : "plain");
    const view = new TurnView(turn, this._conversation.turns.length, { chat, format }, {
      regenerate: () => this._regenerate(turn),
      goOn: () => this._ask(turn.prompt + turn.answer.text),
    });
    this._views.set(turn, view);
    this._turns.append(view.element);
    this._markLast();
    byId("welcome", HTMLElement).hidden = true;
    view.element.scrollIntoView({ block: "end" });
    this._carry(turn);
  }

  /** @param {Turn} turn */
  _regenerate(turn) {
    turn.again();
    this._carry(turn);
    this._composer.focus();
  }

  /**
   * Ask for a turn's answer and show it as it comes.
   * @param {Turn} turn
   */
  async _carry(turn) {
    const { answer } = turn;
    const running = new AbortController();
    this._running = running;
    this._composer.setRunning(true);
    this._announcer.begin();
    const stopDrawing = this._keepDrawing(turn);
    const body = {
      messages: this._conversation.messages(turn, this._state.chat),
      ...this._settings.request(),
    };
    try {
      for await (const chunk of this._api.answer(body, running.signal)) {
        answer.apply(chunk);
        this._announcer.follow(answer.text);
      }
    } catch (error) {
      if (running.signal.aborted) answer.end(null);
      else answer.end(error instanceof Error ? error : new Error(String(error)));
      if (error instanceof ApiError && error.status === 401) this._needKey();
    }
    stopDrawing();
    this._views.get(turn)?.update();
    this._announcer.end(answer.text, answer.error?.message ?? courseWords(answer));
    if (this._running !== running) return; // a new chat was begun meanwhile
    this._running = null;
    this._composer.setRunning(false);
    this._state.ask();
  }

  /**
   * @param {Turn} turn
   * @returns {() => void} ends it
   */
  _keepDrawing(turn) {
    let frame = 0;
    const draw = () => {
      const { scrollingElement } = document;
      const left = scrollingElement
        ? scrollingElement.scrollHeight - scrollingElement.scrollTop - window.innerHeight : 0;
      this._views.get(turn)?.update();
      // Who has scrolled up to read is left there.
      if (left < NEAR_THE_END_PX) scrollingElement?.scrollTo({ top: scrollingElement.scrollHeight });
      frame = requestAnimationFrame(draw);
    };
    frame = requestAnimationFrame(draw);
    return () => cancelAnimationFrame(frame);
  }

  _stop() {
    this._running?.abort();
  }

  _newChat() {
    this._stop();
    this._running = null;
    this._composer.setRunning(false);
    this._conversation = new Conversation();
    this._views.clear();
    this._turns.replaceChildren();
    byId("welcome", HTMLElement).hidden = false;
    this._composer.focus();
  }

  _markLast() {
    const last = this._conversation.turns.at(-1);
    for (const [turn, view] of this._views) view.setLast(turn === last);
  }

  _settled() {
    const { tint, timeline } = this._settings.choices;
    document.body.classList.toggle("untinted", !tint);
    document.body.classList.toggle("without-timeline", !timeline);
    this._state?.show();
  }

  _stateChanged() {
    const { known, ready, chat, problem } = this._state;
    this._composer.setReady(ready);
    this._composer.setKind(chat);
    let notice = problem;
    if (known?.state === "failed") notice = "The model could not be loaded; the log of pd-device says why.";
    this._notice.hidden = notice === "";
    if (this._notice.textContent !== notice) this._notice.textContent = notice;
    if (ready && !byId("examples", HTMLElement).hasChildNodes()) this._showExamples(chat, known?.model.name);
  }

  /**
   * @param {boolean} chat
   * @param {string} name
   */
  _showExamples(chat, name) {
    if (!chat) {
      byId("welcome-text", HTMLElement).textContent = `${name} is a base model: it goes on with a text, and answers ` +
        "no questions. A cloud makes the first words at once; this device reads the text meanwhile, takes over " +
        "without a seam, and the cloud is free again.";
    }
    byId("examples", HTMLElement).append(...(chat ? CHAT_EXAMPLES : TEXT_EXAMPLES).map(({ title, prompt }) => {
      const chosen = element("button", { type: "button" }, title);
      chosen.addEventListener("click", () => {
        this._ask(prompt);
        this._composer.focus();
      });
      return element("li", {}, chosen);
    }));
  }

  /** @param {string} key */
  _useKey(key) {
    if (key === this._api.key) return;
    this._api.key = key;
    this._state.ask();
  }

  _needKey() {
    if (!this._settings.isOpen) this._settings.open("key");
  }
}

new Page();
