// @ts-check
/** The sheet of kept chats: whether they are kept, which there are, and away with them. */

import { confirming } from "./confirm_button.js";
import { button, byId, element } from "./dom.js";
import { counted } from "./words.js";

/** @typedef {import("./kept_chats.js").KeptChats} KeptChats */
/** @typedef {import("./kept_chats.js").Entry} Entry */
/** @typedef {{current: () => string, open: (id: string) => void, deleted: (id: string) => void}} Wishes */

/** Lists chats; `show` after something was kept. */
export class ChatsSheet {
  /**
   * @param {KeptChats} kept
   * @param {Wishes} wishes current: the id of the chat on the page
   */
  constructor(kept, wishes) {
    this._kept = kept;
    this._wishes = wishes;
    /** Whether chats are kept. */
    this.keeping = false;
    this._dialog = byId("chats", HTMLDialogElement);
    this._list = byId("chat-list", HTMLUListElement);
    this._fact = byId("chats-fact", HTMLElement);
    this._problem = byId("chats-problem", HTMLElement);
    this._deleteAll = byId("delete-chats", HTMLButtonElement);
    confirming(this._deleteAll, {
      words: () => "Delete all",
      sure: () => `Delete all ${counted(kept.list().length, "chat")}?`,
      confirmed: () => this._delete(kept.list()),
    });
    byId("open-chats", HTMLButtonElement).addEventListener("click", () => {
      this.show();
      this._dialog.showModal();
    });
    this._dialog.addEventListener("click", (event) => {
      if (event.target === this._dialog) this._dialog.close();
    });
  }

  get isOpen() {
    return this._dialog.open;
  }

  /** @param {boolean} keeping whether chats are kept from now on */
  setKeeping(keeping) {
    this.keeping = keeping;
    this.show();
  }

  /** @param {string} words why the last chat was not kept, or "" */
  tell(words) {
    this._problem.hidden = words === "";
    this._problem.textContent = words;
  }

  /** Show what is kept now. */
  show() {
    const entries = this._kept.list();
    this._fact.textContent = this.keeping
      ? "They stay on this machine, in this browser's storage, until you delete them."
      : "Off: what you write lives in this page's memory, and closing or reloading it forgets it." +
        (entries.length ? " What was kept before stays until you delete it." : "");
    this._list.replaceChildren(...entries.map((entry) => this._item(entry)));
    this._deleteAll.hidden = entries.length === 0;
  }

  /** @param {Entry} entry */
  _item(entry) {
    const open = button(entry.title, () => {
      this._dialog.close();
      this._wishes.open(entry.id);
    });
    open.className = "open-chat";
    if (entry.id === this._wishes.current()) open.setAttribute("aria-current", "true");
    open.append(element("small", {}, `${when(entry.savedMs)}, ${counted(entry.turns, "turn")}`));
    const away = button("", () => undefined);
    away.className = "small danger";
    confirming(away, { words: () => "Delete", sure: () => "Sure?", confirmed: () => this._delete([entry]) });
    away.setAttribute("aria-describedby", (open.id = `chat-${entry.id}`));
    return element("li", {}, open, away);
  }

  /** @param {Entry[]} entries */
  _delete(entries) {
    for (const { id } of entries) {
      this._kept.remove(id);
      this._wishes.deleted(id);
    }
    this.show();
    byId("chats-title", HTMLElement).parentElement?.querySelector("button")?.focus(); // what had it is gone
  }
}

/** @param {number} savedMs */
function when(savedMs) {
  return new Date(savedMs).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
