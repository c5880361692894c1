// @ts-check
/** A button for what cannot be undone: the first press asks, the second one does it. */

const ASKS_FOR_MS = 4000;

/**
 * Let a button ask before it does something.
 * @param {HTMLButtonElement} target
 * @param {{words: () => string, sure: () => string, confirmed: () => void}} what words: on it; sure:
 *   what it asks
 * @returns {() => void} shows its words anew
 */
export function confirming(target, { words, sure, confirmed }) {
  let asking = 0;
  const show = () => {
    clearTimeout(asking);
    asking = 0;
    target.textContent = words();
  };
  target.addEventListener("click", () => {
    if (asking) {
      show();
      confirmed();
      return;
    }
    target.textContent = sure();
    asking = setTimeout(show, ASKS_FOR_MS);
  });
  target.addEventListener("blur", show);
  show();
  return show;
}
