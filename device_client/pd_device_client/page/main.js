// @ts-check
/** The page: one conversation with one device. */

import { Announcer } from "./announcer.js";
import { Answer } from "./answer.js";
import { Api, ApiError } from "./api.js";
import { ChatsSheet } from "./chats_sheet.js";
import { CloudSetting } from "./cloud_setting.js";
import { Composer } from "./composer.js";
import { Conversation, Turn } from "./conversation.js";
import { DeviceState } from "./device_state.js";
import { byId } from "./dom.js";
import { KeptChats } from "./kept_chats.js";
import { Notice } from "./notice.js";
import { Settings } from "./settings.js";
import { TurnView } from "./turn_view.js";
import { Use } from "./use.js";
import { Welcome } from "./welcome.js";
import { courseWords, figures } from "./words.js";

/** @typedef {import("./conversation.js").Undo} Undo */

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
    this._announcer = new Announcer(byId("announcer", HTMLElement));
    this._notice = new Notice((words) => this._announcer.say(words));
    this._kept = new KeptChats();
    this._use = new Use();
    this._settings = new Settings((key) => this._useKey(key), () => this._settled());
    this._composer = new Composer({
      send: (text) => this._ask(text), stop: () => this._stop(), refused: () => this._notice.insist(),
    });
    this._welcome = new Welcome((prompt) => {
      this._ask(prompt);
      this._composer.focus();
    });
    this._chats = new ChatsSheet(this._kept, {
      current: () => this._conversation.id, open: (id) => this._open(id), deleted: (id) => this._deleted(id),
    });
    this._cloud = new CloudSetting(this._api, () => this._state.ask());
    this._state = new DeviceState(this._api, {
      localOnly: () => this._settings.localOnly,
      onChange: () => this._stateChanged(),
      onKeyNeeded: () => this._needKey(),
      onCloud: (cloud) => this._cloud.show(cloud),
    });
    byId("new-chat", HTMLButtonElement).addEventListener("click", () => this._newChat());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this._settings.isOpen && !this._chats.isOpen) this._stop();
    });
    this._kept.watch((deleted) => {
      // Deleted in another page of this browser: what goes on here is not to bring it back.
      if (deleted === this._conversation.id) this._conversation.deleted = true;
      this._chats.show();
    });
    this._settled();
    this._state.ask();
    this._composer.focus();
  }

  /** @param {string} prompt */
  _ask(prompt) {
    if (this._running) return; // two quick presses are one wish
    if (!this._state.ready) {
      this._composer.giveBack(prompt);
      this._notice.insist();
      return;
    }
    const { turn, undo } = this._conversation.ask(prompt, this._state.chat);
    this._showTurns();
    this._carry(turn, undo, () => this._composer.giveBack(prompt));
  }

  /**
   * Another answer to a turn, and perhaps to a changed text.
   * @param {Turn} turn
   * @param {string} [prompt]
   */
  _again(turn, prompt) {
    const editAgain = () => {
      if (prompt !== undefined) this._views.get(turn)?.asked.edit(prompt);
    };
    if (!this._state.ready) {
      this._notice.insist();
      editAgain();
      return;
    }
    this._stop();
    const undo = this._conversation.again(turn, prompt);
    this._showTurns();
    this._carry(turn, undo, editAgain);
    this._composer.focus();
  }

  /**
   * Ask for a turn's answer and show it as it comes.
   * @param {Turn} turn
   * @param {Undo} undo takes the question back, where the device is not there to answer it
   * @param {() => void} giveBack lets what was written be sent again
   */
  async _carry(turn, undo, giveBack) {
    const { answer } = turn;
    const conversation = this._conversation;
    const running = new AbortController();
    this._running = running;
    this._composer.setRunning(true);
    this._announcer.begin();
    const stopDrawing = this._keepDrawing(turn);
    const asked = this._settings.request();
    if (conversation.staysHere) delete asked.pd.mode; // the two might contradict each other
    const body = {
      messages: this._conversation.messages(turn, this._state.chat, this._settings.choices.system.trim()),
      ...asked,
      pd: { ...asked.pd, conversation: conversation.id, ...(conversation.staysHere && { local_only: true }) },
    };
    let unreached = false;
    try {
      for await (const chunk of this._api.answer(body, running.signal)) {
        answer.apply(chunk);
        this._announcer.follow(answer.text);
      }
    } catch (error) {
      if (running.signal.aborted) answer.end(null);
      else answer.end(error instanceof Error ? error : new Error(String(error)));
      unreached = error instanceof ApiError && error.unreached && answer.tokens.length === 0;
      if (error instanceof ApiError && error.status === 401) this._needKey();
    }
    stopDrawing();
    conversation.staysHere ||= answer.staysHere;
    this._use.add(answer);
    if (!unreached) this._keep(conversation);
    if (this._running !== running) return; // another one was begun meanwhile
    this._running = null;
    this._composer.setRunning(false);
    if (unreached) {
      undo();
      this._showTurns();
      giveBack();
    }
    this._views.get(turn)?.update();
    this._announcer.end(answer.text, answer.error?.message ?? courseWords(answer));
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
    this._begin(new Conversation());
  }

  /** @param {Conversation} conversation */
  _begin(conversation) {
    this._stop();
    this._running = null;
    this._composer.setRunning(false);
    this._conversation = conversation;
    this._showTurns();
    this._composer.focus();
  }

  /** Show the turns that there are; those that stay keep their elements. */
  _showTurns() {
    const { turns } = this._conversation;
    for (const [turn, view] of this._views) {
      if (turns.includes(turn)) continue;
      view.element.remove();
      this._views.delete(turn);
    }
    for (const [i, turn] of turns.entries()) {
      const view = this._views.get(turn) ?? this._makeView(turn, i + 1);
      if (this._turns.children[i] !== view.element) this._turns.insertBefore(view.element, this._turns.children[i] ?? null);
      view.setLast(i === turns.length - 1);
      view.update();
    }
    this._welcome.setShown(turns.length === 0);
    this._turns.lastElementChild?.scrollIntoView({ block: "end" });
  }

  /**
   * @param {Turn} turn
   * @param {number} number
   */
  _makeView(turn, number) {
    const format = this._settings.choices.format || (turn.chat ? "markdown" : "plain");
    const view = new TurnView(turn, number, format, {
      again: (prompt) => this._again(turn, prompt),
      goOn: () => this._ask(turn.prompt + turn.answer.text),
    });
    this._views.set(turn, view);
    return view;
  }

  /**
   * Keep a conversation, where that is wanted.
   * @param {Conversation} conversation
   */
  _keep({ id, turns, deleted }) {
    const ended = turns.filter(({ answer }) => answer.ended);
    if (!this._settings.choices.keepChats || deleted || ended.length === 0) return;
    const problem = this._kept.save({
      id, savedMs: Date.now(),
      turns: ended.map(({ prompt, chat, answer }) => ({
        prompt, chat, text: answer.text, runs: answer.runs, error: answer.error?.message ?? "",
        told: { course: courseWords(answer), figures: figures(answer), staysHere: answer.staysHere },
      })),
    });
    this._chats.tell(problem);
    this._chats.show();
    if (problem) this._notice.mention(problem);
  }

  /** @param {string} id of a kept chat */
  _open(id) {
    const kept = this._kept.load(id);
    if (kept === null || id === this._conversation.id) return;
    const conversation = new Conversation(id);
    conversation.staysHere = kept.turns.some(({ told }) => told.staysHere === true);
    conversation.turns = kept.turns.map(({ prompt, chat, ...rest }) => {
      const turn = new Turn(prompt, chat);
      turn.answer = Answer.restored(rest);
      return turn;
    });
    this._begin(conversation);
  }

  /** @param {string} id of a chat that was deleted here */
  _deleted(id) {
    if (id !== this._conversation.id) return;
    this._conversation.deleted = true;
    this._newChat();
  }

  _settled() {
    const { tint, timeline, keepChats } = this._settings.choices;
    document.body.classList.toggle("untinted", !tint);
    document.body.classList.toggle("without-timeline", !timeline);
    this._state.show();
    if (keepChats && !this._chats.keeping) this._keep(this._conversation);
    this._chats.setKeeping(keepChats);
  }

  _stateChanged() {
    const { known, ready, chat, problem, gone } = this._state;
    this._composer.setReady(ready);
    this._composer.setKind(chat);
    this._settings.setKind(chat);
    this._notice.show(known, problem, gone);
    if (ready && known) this._welcome.show(known, chat);
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
