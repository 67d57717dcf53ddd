// One answer of the model, and what a person says of it: a vote, a correction, tags.

import * as api from "./api.js";
import { complain, element, tell, textForm, thumb } from "./dom.js";

const MAX_TAGS = 20;

/** An answer that is being written, and then judged. */
export class Answer {
  #said = { vote: null, correction: null, tags: [] };
  #id = api.newId();
  #subject = null;
  #terms;
  #saving = Promise.resolve();
  #text = "";
  #judging;

  /**
   * @param {?function(): {consent: boolean, person: ?string}} terms on which the person gives feedback; null for none
   * @param {string} label which answer it is
   */
  constructor(terms, label = "Answer") {
    this.#terms = terms;
    this.shown = element("div", { class: "text" });
    this.note = element("p", { class: "quiet", hidden: true });
    this.tools = element("div", { class: "tools" });
    this.element = element("article", {
      class: "answer", tabindex: "-1", "aria-label": label, "aria-busy": "true", keydown: (event) => this.#keys(event),
    }, this.shown, this.note, this.tools);
  }

  /** What the conversation goes on from: the correction, if there is one. */
  get text() {
    return this.#said.correction ?? this.#text;
  }

  append(piece) {
    this.#text += piece;
    this.shown.append(piece);
  }

  /**
   * The answer is written.
   * @param {object} subject what feedback on it is about: `prompt`, `model` and `champion`
   * @param {string} reason `stop`, `length`, `stopped` or `failed`
   */
  finish(subject, reason) {
    this.element.removeAttribute("aria-busy");
    this.element.tabIndex = 0;
    const notes = { length: "Cut: it is as long as the server allows.", stopped: "Stopped." };
    if (reason in notes) this.#noteThat(notes[reason]);
    if (!this.#terms || reason === "failed" || !this.#text) return;
    const { person } = this.#terms();
    this.#subject = { ...subject, answer: this.#text, source: "page", ...(person ? { person } : {}) };
    this.#judging = true;
    // Half an answer is no example of a good or a bad one.
    this.#offer(reason !== "stopped");
  }

  /**
   * There is no answer, or no more of it.
   * @param {Error} error that says why
   * @param {function()} again is called where the person wants to ask again
   */
  fail(error, again) {
    this.tools.append(element("p", { class: "problem" }, error.message),
      element("button", { type: "button", click: again }, "Ask again"));
  }

  #noteThat(text) {
    this.note.textContent = text;
    this.note.hidden = false;
  }

  #offer(votable) {
    const vote = (value, label, key) => element("button", {
      type: "button", "aria-pressed": "false", title: `${label} (${key})`,
      "data-vote": value, click: () => this.#vote(value),
    }, thumb(value));
    this.votes = votable ? [vote(1, "Good answer", "u"), vote(-1, "Bad answer", "d")] : [];
    this.correct = element("button", { type: "button", title: "Correct (e)", click: () => this.#edit() }, "Correct");
    this.tagField = element("input", {
      class: "tag-field", "aria-label": "Add a tag", title: "Add a tag (t)", placeholder: "Add a tag", maxlength: 128,
      autocomplete: "off", keydown: (event) => this.#tagKeys(event),
    });
    this.tagList = element("ul", { class: "tags", "aria-label": "Tags" });
    this.tools.append(...this.votes, this.correct, this.tagList, this.tagField);
  }

  /** Say something of it; it is shown once the server keeps it. */
  #say(change, told) {
    const saved = this.#saving.then(async () => {
      const said = { ...this.#said, ...change };
      const { consent } = this.#terms();
      await api.give({ id: this.#id, ...this.#subject, ...said, consent });
      this.#said = said;
      this.#show();
      tell(told);
    });
    this.#saving = saved.catch(() => {}); // The one who asked is told; what comes next is sent all the same.
    return saved;
  }

  #vote(value) {
    this.#say({ vote: value }, value === 1 ? "Saved: a good answer." : "Saved: a bad answer.").catch(complain);
  }

  #edit() {
    if (this.form) return this.form.focus();
    const leave = () => {
      this.form.form.replaceWith(this.shown);
      this.form = null;
      this.element.focus();
    };
    const save = async (text) => {
      await this.#say({ correction: text === this.#text ? null : text }, "Saved: the correction.");
      leave();
    };
    this.form = textForm({ label: "What the model should have answered", text: this.text, save, leave });
    this.shown.replaceWith(this.form.form);
    this.form.focus();
  }

  #tagKeys(event) {
    if (event.key === "Escape") {
      event.stopPropagation();
      this.element.focus();
    }
    if (event.key !== "Enter") return;
    event.preventDefault();
    const tag = this.tagField.value.trim();
    const tags = this.#said.tags;
    if (!tag || tags.includes(tag)) return;
    if (tags.length >= MAX_TAGS) return complain(new Error(`An answer has ${MAX_TAGS} tags at most.`));
    this.#say({ tags: [...tags, tag] }, `Saved: the tag ${tag}.`).then(() => { this.tagField.value = ""; }, complain);
  }

  #removeTag(tag) {
    const tags = this.#said.tags.filter((each) => each !== tag);
    this.#say({ tags }, `Removed: the tag ${tag}.`).then(() => this.tagField.focus(), complain);
  }

  #show() {
    const { vote, correction, tags } = this.#said;
    for (const button of this.votes) button.setAttribute("aria-pressed", String(Number(button.dataset.vote) === vote));
    this.shown.replaceChildren(this.text);
    this.original?.remove();
    if (correction !== null) {
      this.original = element("details", { class: "original" },
        element("summary", {}, "Corrected; what the model wrote"), element("div", { class: "text" }, this.#text));
      this.note.after(this.original);
    }
    this.tagList.replaceChildren(...tags.map((tag) => element("li", {}, tag,
      element("button", { type: "button", "aria-label": `Remove the tag ${tag}`, click: () => this.#removeTag(tag) }, "×"))));
  }

  #keys(event) {
    if (event.target !== this.element || !this.#judging || !event.isShortcut) return;
    const does = {
      u: () => this.votes[0]?.click(), d: () => this.votes[1]?.click(),
      e: () => this.#edit(), t: () => this.tagField.focus(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }
}
