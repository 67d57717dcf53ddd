// The form in which people write to models.

import { element } from "./dom.js";

/** A field for a text: Enter sends it, and while it is answered there is Stop. */
export class Composer {
  #running = null;
  #write;
  #field;
  #stop;
  #send;

  /**
   * @param {HTMLFormElement} form that becomes it
   * @param {{label: string, placeholder: string, write: function(string, AbortSignal): Promise}} options `write` has
   *   models answer, and ends early when the signal says so
   */
  constructor(form, { label, placeholder, write }) {
    this.#write = write;
    const hint = element("span", { id: `${form.id}-hint`, class: "quiet hint" },
      "Enter sends, Shift+Enter breaks the line");
    this.#field = element("textarea", {
      rows: 2, placeholder, "aria-label": label, "aria-describedby": hint.id, keydown: (event) => this.#keys(event),
    });
    this.#stop = element("button", { type: "button", hidden: true, click: () => this.stop() }, "Stop");
    this.#send = element("button", { type: "submit", class: "primary" }, "Send");
    form.append(this.#field, element("div", { class: "row" }, hint, this.#stop, this.#send));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  focus() {
    this.#field.focus();
  }

  /** Put a text into the field, to be sent or changed. */
  fill(text) {
    this.#field.value = text;
    this.#field.focus();
  }

  /** Whether the person waits here: the field has the focus, and nothing in it. */
  get waits() {
    return document.activeElement === this.#field && !this.#field.value;
  }

  /** Whether an answer is being written. */
  get busy() {
    return this.#running !== null;
  }

  stop() {
    this.#running?.abort();
  }

  #keys(event) {
    // Enter that ends the writing of a Chinese or Japanese word sends nothing.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  async #submit() {
    const text = this.#field.value;
    if (!text.trim() || this.busy) return;
    this.#field.value = "";
    this.#runs(new AbortController());
    try {
      await this.#write(text, this.#running.signal);
    } finally {
      this.#runs(null);
    }
  }

  #runs(running) {
    this.#running = running;
    this.#stop.hidden = running === null;
    this.#send.hidden = running !== null;
  }
}
