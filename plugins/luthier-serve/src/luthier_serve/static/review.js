// The queue of answers to review: one at a time, the newest first.

import * as api from "./api.js";
import { byId, complain, element, keyButton, tell, textForm } from "./dom.js";
import { rowParts } from "./row.js";

/** The view `review`. */
export class Review {
  #queue = [];
  #before = null;
  #card = null;
  #acting = false;

  async open() {
    this.#queue = [];
    this.#before = null;
    await this.#next();
  }

  /** Show how many wait, also in the heading of the page. */
  async count() {
    const waiting = (await api.counts()).state.new ?? 0;
    byId("waiting").textContent = waiting;
    byId("waiting").hidden = !waiting;
    byId("left").textContent = waiting ? `${waiting} to review` : "";
  }

  async #next() {
    try {
      if (!this.#queue.length) this.#queue = (await api.rows({ state: "new", before: this.#before })).data;
      await this.count();
    } catch (error) {
      return complain(error);
    }
    const row = this.#queue.shift();
    if (!row) {
      const text = this.#before ? "That was the last one. What was skipped waits." : "There is nothing to review.";
      byId("reviewed").replaceChildren(element("p", { class: "quiet" }, text));
      return;
    }
    this.#before = row.sequence;
    this.#show(row);
  }

  #show(row) {
    this.#card = element("article", {
      class: "card", tabindex: "-1", "aria-label": "Feedback to review", keydown: (event) => this.#keys(event),
    }, ...rowParts(row), element("div", { class: "tools" },
      keyButton("Accept", "a", () => this.#alone(() => this.#post(row, { state: "accepted" })), "primary"),
      keyButton("Edit", "e", () => this.#edit(row)),
      keyButton("Reject", "r", () => this.#alone(() => this.#post(row, { state: "rejected" }))),
      keyButton("Skip", "s", () => this.#alone(() => this.#next()))));
    byId("reviewed").replaceChildren(this.#card);
    this.#card.focus();
  }

  /** One thing at a time: a second key, pressed before the next card is there, is not meant for the one before. */
  async #alone(does) {
    if (this.#acting) return;
    this.#acting = true;
    try {
      await does();
    } catch (error) {
      complain(error);
    } finally {
      this.#acting = false;
    }
  }

  async #post(row, said) {
    try {
      const after = await api.review(row.id, { ...said, revision: row.revision });
      await this.#next();
      tell(`Saved: ${said.state}. `);
      if (said.state !== "edited") byId("status").append(this.#undoing(after));
    } catch (error) {
      // It was changed meanwhile, or forgotten: what there is now is read again.
      if (error.status !== 409 && error.status !== 404) throw error;
      await this.open();
      complain(error);
    }
  }

  #undoing(row) {
    const undo = () => this.#alone(async () => {
      await api.review(row.id, { state: "new", revision: row.revision });
      await this.open();
      tell("It waits for review again.");
    });
    return element("button", { type: "button", click: undo }, "Undo");
  }

  #edit(row) {
    const tools = this.#card.querySelector(".tools");
    const leave = () => {
      form.replaceWith(tools);
      this.#card.focus();
    };
    const { form, focus } = textForm({
      label: "What the model should have answered",
      text: row.correction ?? row.answer,
      save: (text) => this.#post(row, { state: "edited", correction: text }),
      leave,
    });
    tools.replaceWith(form);
    focus();
  }

  #keys(event) {
    if (event.target.closest("textarea") || !event.isShortcut) return;
    const button = this.#card.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
    if (!button) return;
    event.preventDefault();
    button.click();
  }
}
