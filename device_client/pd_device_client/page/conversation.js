// @ts-check
/** What was asked and answered: in this page's memory, unless the reader wants it kept. */

import { Answer } from "./answer.js";

/** @typedef {{role: "system" | "user" | "assistant", content: string}} Message */
/** @typedef {() => void} Undo puts everything back as it was */

/** One question and its answer. */
export class Turn {
  /**
   * @param {string} prompt
   * @param {boolean} chat whether it was answered, or gone on with
   */
  constructor(prompt, chat) {
    this.prompt = prompt;
    this.chat = chat;
    this.answer = new Answer();
  }
}

/** The turns in their order. */
export class Conversation {
  /** @param {string} [id] the one it was kept under */
  constructor(id) {
    this.id = id ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
    /** Whether it was deleted from what is kept: then it is not kept again. */
    this.deleted = false;
    /** Whether an answer of it stayed on the device: then all further ones do. */
    this.staysHere = false;
    /** @type {Turn[]} */
    this.turns = [];
  }

  /**
   * @param {string} prompt
   * @param {boolean} chat
   * @returns {{turn: Turn, undo: Undo}}
   */
  ask(prompt, chat) {
    const turn = new Turn(prompt, chat);
    const undo = this._undo();
    this.turns = [...this.turns, turn];
    return { turn, undo };
  }

  /**
   * Ask for another answer, of this text from now on. What followed on the old one goes with it.
   * @param {Turn} turn
   * @param {string} [prompt]
   * @returns {Undo}
   */
  again(turn, prompt = turn.prompt) {
    const undo = this._undo();
    const before = { prompt: turn.prompt, answer: turn.answer };
    this.turns = this.turns.slice(0, this.turns.indexOf(turn) + 1);
    turn.prompt = prompt;
    turn.answer = new Answer();
    return () => {
      Object.assign(turn, before);
      undo();
    };
  }

  /**
   * The messages that a turn's answer is to follow.
   * @param {Turn} turn
   * @param {boolean} chat false: the model goes on with a text, so only that text counts
   * @param {string} system what the model is told before everything else, or ""
   * @returns {Message[]}
   */
  messages(turn, chat, system) {
    /** @type {Message[]} */
    const messages = chat && system ? [{ role: "system", content: system }] : [];
    const before = chat ? this.turns.slice(0, this.turns.indexOf(turn)) : [];
    for (const { prompt, answer } of before) {
      if (!answer.text) continue; // a question without an answer would stand beside the next one
      messages.push({ role: "user", content: prompt }, { role: "assistant", content: answer.text });
    }
    return [...messages, { role: "user", content: turn.prompt }];
  }

  /** @returns {Undo} */
  _undo() {
    const { turns } = this;
    return () => {
      this.turns = turns;
    };
  }
}
