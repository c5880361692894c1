// @ts-check
/** An answer's text in the document: formatted or as it is, its parts tinted by their maker. */

import { CodeBlock } from "./code_block.js";
import { element } from "./dom.js";
import { parseMarkdown } from "./markdown.js";
import { Tint } from "./tint.js";

/** @typedef {import("./answer.js").Run} Run */
/** @typedef {import("./inline.js").Inline} Inline */
/** @typedef {import("./markdown.js").Block} Block */

/** Shows a growing text; only the blocks that changed are made anew. */
export class RichText {
  /** @param {HTMLElement} container */
  constructor(container) {
    this._container = container;
    /** @type {string[]} what each child was made of */
    this._made = [];
    /** @type {CodeBlock | null} the last one made: it grows where it is */
    this._growing = null;
  }

  /**
   * @param {string} text
   * @param {Run[]} runs who made which characters; all of them in order
   * @param {"markdown" | "plain"} format
   */
  show(text, runs, format) {
    const tint = new Tint(runs);
    if (format === "plain") {
      this._replace([`plain ${text.length} ${tint.keyOf(0, text.length)}`], () => plainText(text, tint));
      return;
    }
    const blocks = parseMarkdown(text);
    const levels = headingLevels(blocks.map(({ block }) => block));
    const keys = blocks.map(({ block, source, at }, i) =>
      `${block.kind}${levels[i]} ${tint.keyOf(at, at + source.length)} ${at}:${source}`);
    this._replace(keys, (i) => {
      const { block } = blocks[i];
      return block.kind === "code" ? this._codeElement(block, tint, i) : blockElement(block, tint, levels[i]);
    });
  }

  /**
   * Code keeps its element while it grows: its button keeps the focus, its lines stay scrolled.
   * @param {import("./code_block.js").Code} code
   * @param {Tint} tint
   * @param {number} i its place among the blocks
   */
  _codeElement(code, tint, i) {
    if (this._growing !== null && this._growing.element === this._container.children[i]) {
      this._growing.show(code, tint);
    } else {
      this._growing = new CodeBlock(code, tint);
    }
    return this._growing.element;
  }

  /**
   * @param {string[]} keys
   * @param {(i: number) => HTMLElement} make
   */
  _replace(keys, make) {
    const { children } = this._container;
    for (let i = 0; i < keys.length; i += 1) {
      if (this._made[i] === keys[i]) continue;
      const made = make(i);
      if (children[i] === made) continue;
      if (i < children.length) children[i].replaceWith(made);
      else this._container.append(made);
    }
    while (children.length > keys.length) children[children.length - 1].remove();
    this._made = keys;
  }
}

/**
 * @param {string} text
 * @param {Tint} tint
 */
function plainText(text, tint) {
  const made = element("div", { class: "as-it-is" });
  tint.append(made, text, (i) => i);
  return made;
}

/**
 * The levels at which headings are shown: below the page's own, and none left out on the way down.
 * @param {Block[]} blocks
 * @returns {number[]} 0 for what is no heading
 */
function headingLevels(blocks) {
  let last = 2;
  return blocks.map((block) => {
    if (block.kind !== "heading") return 0;
    last = Math.min(block.level + 2, last + 1, 6);
    return last;
  });
}

/**
 * @param {Block} block
 * @param {Tint} tint
 * @param {number} [level] of a heading; 0 where headings have no place, as in a list
 * @returns {HTMLElement}
 */
function blockElement(block, tint, level = 0) {
  switch (block.kind) {
    case "paragraph":
      return inlineInto(element("p"), block.inline, tint);
    case "heading": {
      if (level === 0) return element("p", {}, inlineInto(element("strong"), block.inline, tint));
      const tag = /** @type {"h3" | "h4" | "h5" | "h6"} */ (`h${level}`);
      return inlineInto(element(tag), block.inline, tint);
    }
    case "rule":
      return element("hr");
    case "code":
      return new CodeBlock(block, tint).element;
    case "quote":
      return element("blockquote", {}, ...block.blocks.map((inner) => blockElement(inner, tint)));
    case "list": {
      const list = element(block.ordered ? "ol" : "ul");
      if (block.ordered && block.start !== 1) list.setAttribute("start", String(block.start));
      list.append(...block.items.map((item) => itemElement(item, tint)));
      return list;
    }
    case "table":
      return tableElement(block.head, block.rows, tint);
  }
}

/**
 * @param {Block[]} blocks
 * @param {Tint} tint
 */
function itemElement(blocks, tint) {
  const item = element("li");
  for (const block of blocks) {
    if (block.kind === "paragraph" && !item.hasChildNodes()) inlineInto(item, block.inline, tint);
    else item.append(blockElement(block, tint));
  }
  return item;
}

/**
 * @param {Inline[][]} head
 * @param {Inline[][][]} rows
 * @param {Tint} tint
 */
function tableElement(head, rows, tint) {
  /**
   * @param {"th" | "td"} tag
   * @param {Inline[][]} cells
   */
  const row = (tag, cells) =>
    element("tr", {}, ...cells.map((cell) => inlineInto(element(tag), cell, tint)));
  const table = element("table", {}, element("thead", {}, row("th", head)));
  table.append(element("tbody", {}, ...rows.map((cells) => row("td", cells))));
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "table" }, table);
}

/**
 * @param {HTMLElement} target
 * @param {Inline[]} nodes
 * @param {Tint} tint
 */
function inlineInto(target, nodes, tint) {
  for (const node of nodes) {
    switch (node.kind) {
      case "text":
        tint.append(target, node.text, (i) => node.at[i]);
        break;
      case "code": {
        const code = element("code");
        tint.append(code, node.text, (i) => node.at[i]);
        target.append(code);
        break;
      }
      case "break":
        target.append(element("br"));
        break;
      case "link":
        target.append(inlineInto(linkElement(node.href), node.inside, tint));
        break;
      default:
        target.append(inlineInto(element(node.kind), node.inside, tint));
    }
  }
  return target;
}

/** @param {string} href checked by the parser: http, https or mailto */
function linkElement(href) {
  return element("a", { href, rel: "noopener noreferrer nofollow", target: "_blank" });
}
