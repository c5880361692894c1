// @ts-check
/** The chats that the reader wants kept: in this browser's storage, within bounds, and nowhere else. */

/** @typedef {import("./answer.js").Run} Run */
/** @typedef {import("./answer.js").Told} Told */
/** @typedef {{prompt: string, chat: boolean, text: string, runs: Run[], error: string, told: Told}} KeptTurn */
/** @typedef {{id: string, savedMs: number, turns: KeptTurn[]}} KeptChat */
/** @typedef {{id: string, title: string, savedMs: number, turns: number}} Entry of the list */

const PREFIX = "pd-device.chat.";
export const MOST_CHATS = 100;
export const MOST_CHARACTERS = 2_000_000; // of a browser's usual 5 million
const TITLE_CHARACTERS = 80;

/** Keeps chats, one entry of the storage for each, so that two pages do not undo each other. */
export class KeptChats {
  /** @returns {Entry[]} the newest first */
  list() {
    const chats = keys().map((key) => readChat(key)).filter((chat) => chat !== null);
    return chats.sort((a, b) => b.savedMs - a.savedMs)
      .map(({ id, savedMs, turns }) => ({ id, savedMs, turns: turns.length, title: title(turns[0].prompt) }));
  }

  /** @param {string} id */
  load(id) {
    return readChat(PREFIX + id);
  }

  /**
   * Keep a chat, in place of what was kept of it before. The oldest others make room for it.
   * @param {KeptChat} chat
   * @returns {string} why it is not kept, or ""
   */
  save(chat) {
    const key = PREFIX + chat.id;
    const value = JSON.stringify(chat);
    if (value.length > MOST_CHARACTERS) return "This chat is too long to be kept.";
    const others = this.list().map(({ id }) => PREFIX + id).filter((other) => other !== key);
    let size = others.reduce((sum, other) => sum + sizeOf(other), value.length);
    while (others.length >= MOST_CHATS || size > MOST_CHARACTERS) {
      const oldest = /** @type {string} */ (others.pop());
      size -= sizeOf(oldest);
      drop(oldest);
    }
    for (;;) {
      try {
        localStorage.setItem(key, value);
        return "";
      } catch {
        const oldest = others.pop(); // another page of this address may fill the storage
        if (oldest === undefined) return "This browser has no room for this chat; it is not kept.";
        drop(oldest);
      }
    }
  }

  /** @param {string} id */
  remove(id) {
    drop(PREFIX + id);
  }

  removeAll() {
    keys().forEach(drop);
  }

  /**
   * Tell of chats that another page of this browser changed.
   * @param {(deleted: string | null) => void} changed with the id of one that was deleted
   */
  watch(changed) {
    window.addEventListener("storage", ({ key, newValue }) => {
      if (key === null) changed(null);
      else if (key.startsWith(PREFIX)) changed(newValue === null ? key.slice(PREFIX.length) : null);
    });
  }
}

/** @returns {string[]} */
function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return []; // the browser keeps nothing
  }
}

/** @param {string} key */
function sizeOf(key) {
  return localStorage.getItem(key)?.length ?? 0;
}

/** @param {string} key */
function drop(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // Nothing is kept, so there is nothing to drop.
  }
}

/**
 * @param {string} key
 * @returns {KeptChat | null} null: nothing, or something else wrote it
 */
function readChat(key) {
  try {
    const chat = JSON.parse(localStorage.getItem(key) ?? "null");
    const whole = PREFIX + chat.id === key && Number.isFinite(chat.savedMs) && chat.turns.length > 0;
    return whole && chat.turns.every(isTurn) ? chat : null;
  } catch {
    return null;
  }
}

/** @param {any} turn */
function isTurn(turn) {
  const { prompt, chat, text, runs, error, told } = turn;
  return [prompt, text, error, told.course].every((value) => typeof value === "string")
    && typeof chat === "boolean"
    && runs.every((/** @type {any} */ run) =>
      ["cloud", "device"].includes(run.origin) && Number.isInteger(run.start) && Number.isInteger(run.end))
    && told.figures.every((/** @type {any} */ pair) => pair.length === 2 && pair.every((/** @type {any} */ part) => typeof part === "string"));
}

/** @param {string} prompt */
function title(prompt) {
  const line = prompt.trim().split("\n")[0].trim();
  return line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS - 1)}…` : line;
}
