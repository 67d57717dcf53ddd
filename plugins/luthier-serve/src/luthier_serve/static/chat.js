// The conversation: messages out, answers in as they are written.

import { Answer } from "./answer.js";
import * as api from "./api.js";
import { byId, complain, element, tell } from "./dom.js";

/** The view `chat`. */
export class Chat {
  #turns = [];
  #running = null;
  #terms;

  /** @param {?function(): object} terms see `Answer` */
  constructor(terms) {
    this.#terms = terms;
    this.message = byId("message");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.message.addEventListener("keydown", (event) => {
      // Enter that ends the writing of a Chinese or Japanese word sends nothing.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("new").addEventListener("click", () => this.begin());
  }

  /** Show which models there are. */
  offer(models) {
    byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    byId("model").disabled = models.length < 2;
  }

  open() {
    this.message.focus();
  }

  /** Forget this conversation, and begin another one. */
  begin() {
    this.stop();
    this.#turns = [];
    byId("conversation").replaceChildren();
    tell("A new conversation.");
    this.message.focus();
  }

  stop() {
    this.#running?.abort();
  }

  /** Whether an answer is being written. */
  get busy() {
    return this.#running !== null;
  }

  /** Give the focus to the answer that is so many after the one that has it. */
  move(step) {
    const answers = [...document.querySelectorAll(".answer")];
    const now = answers.indexOf(document.activeElement.closest(".answer"));
    answers.at(now < 0 ? -1 : Math.min(Math.max(now + step, 0), answers.length - 1))?.focus();
  }

  async send() {
    const text = this.message.value;
    if (!text.trim() || this.#running) return;
    this.message.value = "";
    const answer = new Answer(this.#terms);
    const turn = { text, answer };
    const prompt = this.#messages(text);
    this.#turns.push(turn);
    const place = byId("conversation");
    place.append(element("div", { class: "message", role: "group", "aria-label": "You" }, text), answer.element);
    this.#follow(true);
    await this.#write(turn, prompt, byId("model").value);
  }

  /** What the model reads: the conversation with its corrections, without what came to nothing. */
  #messages(text) {
    const before = this.#turns.filter(({ failed }) => !failed).flatMap((turn) => [
      { role: "user", content: turn.text }, { role: "assistant", content: turn.answer.text },
    ]);
    return [...before, { role: "user", content: text }];
  }

  async #write(turn, prompt, champion) {
    const { answer } = turn;
    const running = new AbortController();
    this.#busy(running);
    tell("The model writes…");
    const subject = { prompt, champion };
    let reason = "failed";
    try {
      for await (const chunk of api.chat(champion, prompt, running.signal)) {
        subject.model = chunk.system_fingerprint;
        const [choice] = chunk.choices;
        const near = this.#isAtEnd();
        answer.append(choice?.delta.content ?? "");
        this.#follow(near);
        reason = choice?.finish_reason ?? reason;
      }
      tell("The answer is there.");
    } catch (error) {
      if (error.name === "AbortError") {
        reason = "stopped";
        tell("Stopped.");
      } else {
        complain(error);
        this.#offerAgain(turn, error);
      }
    }
    // What was stopped before its first word, or failed, is not part of the conversation.
    turn.failed = reason === "failed" || !answer.text;
    answer.finish(subject, reason);
    if (this.#running === running) this.#busy(null);
  }

  #offerAgain(turn, error) {
    const again = () => {
      this.message.value = turn.text;
      this.message.focus();
    };
    turn.answer.tools.append(element("p", { class: "problem" }, error.message),
      element("button", { type: "button", click: again }, "Ask again"));
  }

  #busy(running) {
    this.#running = running;
    byId("stop").hidden = running === null;
    byId("send").hidden = running !== null;
  }

  #isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = byId("conversation");
    return scrollTop + clientHeight > scrollHeight - 40;
  }

  #follow(wanted) {
    const place = byId("conversation");
    if (wanted) place.scrollTop = place.scrollHeight;
  }
}
