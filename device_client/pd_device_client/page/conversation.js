// @ts-check
/** What was asked and answered: in this page's memory, and nowhere else. */

import { Answer } from "./answer.js";

/** @typedef {{role: "user" | "assistant", content: string}} Message */

/** One question and its answer. */
export class Turn {
  /** @param {string} prompt */
  constructor(prompt) {
    this.prompt = prompt;
    this.answer = new Answer();
  }

  /** Forget the answer, for another one. */
  again() {
    this.answer = new Answer();
  }
}

/** The turns in their order. */
export class Conversation {
  constructor() {
    /** @type {Turn[]} */
    this.turns = [];
  }

  /**
   * @param {string} prompt
   * @returns {Turn}
   */
  ask(prompt) {
    const turn = new Turn(prompt);
    this.turns.push(turn);
    return turn;
  }

  /**
   * The messages that a turn's answer is to follow.
   * @param {Turn} turn
   * @param {boolean} chat false: the model goes on with a text, so only that text counts
   * @returns {Message[]}
   */
  messages(turn, chat) {
    /** @type {Message[]} */
    const messages = [];
    const before = chat ? this.turns.slice(0, this.turns.indexOf(turn)) : [];
    for (const { prompt, answer } of before) {
      if (!answer.text) continue; // a question without an answer would stand beside the next one
      messages.push({ role: "user", content: prompt }, { role: "assistant", content: answer.text });
    }
    return [...messages, { role: "user", content: turn.prompt }];
  }
}
