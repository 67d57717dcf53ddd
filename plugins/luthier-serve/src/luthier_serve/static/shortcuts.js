// The keyboard: what keys do, and the dialog that says so.

import { byId, element } from "./dom.js";

const SINGLE_KEYS = "luthier-single-keys";

const TOLD = [
  ["Enter", "send"], ["Shift+Enter", "a new line"], ["Escape", "stop the answer; leave a form"],
  ["/", "write to the model"], ["n", "a new conversation"], ["j k", "the next answer, the one before"],
  ["u d", "of an answer that has the focus: good, bad"], ["e", "correct it; in review: edit"], ["t", "tag it"],
  ["a r s", "in review: accept, reject, skip"], ["Ctrl+Enter", "save a correction"],
  ["a b", "of two answers side by side: A is better, B is better"], ["u d", "of both: good, bad"],
  ["1 2 3 4", "chat, feedback, review, compare"], ["?", "this help"],
];

/**
 * Listen to the keyboard.
 * @param {object} does by key, what a key does that stands alone
 * @param {function(): boolean} escape does what Escape does, if anything
 */
export function listen(does, escape) {
  const help = byId("help");
  byId("shortcuts").replaceChildren(...TOLD.map(([keys, what]) => element("div", {},
    element("dt", {}, ...keys.split(" ").flatMap((key) => [element("kbd", {}, key), " "])), element("dd", {}, what))));
  const single = byId("single-keys");
  // Who speaks to the machine, or touches keys by chance, can turn them off (WCAG 2.1.4).
  single.checked = localStorage.getItem(SINGLE_KEYS) !== "off";
  single.addEventListener("change", () => localStorage.setItem(SINGLE_KEYS, single.checked ? "on" : "off"));
  byId("help-button").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());

  // Before the elements hear of it, which ask whether it is a shortcut.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
    event.isShortcut = single.checked && !typing && !help.open && !event.ctrlKey && !event.metaKey && !event.altKey;
  }, { capture: true });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || help.open) return;
    if (event.key === "Escape" && escape()) return event.preventDefault();
    if (!event.isShortcut) return;
    const action = event.key === "?" ? () => help.showModal() : does[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
