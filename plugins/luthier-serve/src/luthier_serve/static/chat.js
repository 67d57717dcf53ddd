// The conversation: messages out, answers in as they are written.

import { Answer } from "./answer.js";
import * as api from "./api.js";
import { Composer } from "./composer.js";
import { byId, complain, element, tell } from "./dom.js";

/** The view `chat`. */
export class Chat {
  #turns = [];
  #terms;

  /** @param {?function(): object} terms see `Answer` */
  constructor(terms) {
    this.#terms = terms;
    this.composer = new Composer(byId("message-form"), {
      label: "Message", placeholder: "Write to the model", write: (text, signal) => this.#answer(text, signal),
    });
    byId("new").addEventListener("click", () => this.begin());
  }

  /** Show which models there are. */
  offer(models) {
    byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    byId("model").disabled = models.length < 2;
  }

  open() {
    this.composer.focus();
  }

  /** Forget this conversation, and begin another one. */
  begin() {
    this.composer.stop();
    this.#turns = [];
    byId("conversation").replaceChildren();
    tell("A new conversation.");
    this.open();
  }

  /** Give the focus to the answer that is so many after the one that has it. */
  move(step) {
    const answers = [...document.querySelectorAll("#conversation .answer")];
    const now = answers.indexOf(document.activeElement.closest(".answer"));
    answers.at(now < 0 ? -1 : Math.min(Math.max(now + step, 0), answers.length - 1))?.focus();
  }

  async #answer(text, signal) {
    const answer = new Answer(this.#terms);
    const turn = { text, answer };
    const prompt = this.#messages(text);
    this.#turns.push(turn);
    const place = byId("conversation");
    place.append(element("div", { class: "message", role: "group", "aria-label": "You" }, text), answer.element);
    this.#follow(true);
    await this.#write(turn, prompt, byId("model").value, signal);
  }

  /** What the model reads: the conversation with its corrections, without what came to nothing. */
  #messages(text) {
    const before = this.#turns.filter(({ failed }) => !failed).flatMap((turn) => [
      { role: "user", content: turn.text }, { role: "assistant", content: turn.answer.text },
    ]);
    return [...before, { role: "user", content: text }];
  }

  async #write(turn, prompt, champion, signal) {
    const { answer } = turn;
    tell("The model writes…");
    const { reason, hash, error } = await api.write(champion, prompt, signal, (piece) => {
      const near = this.#isAtEnd();
      answer.append(piece);
      this.#follow(near);
    });
    if (error) {
      complain(error);
      answer.fail(error, () => this.composer.fill(turn.text));
    } else {
      tell(reason === "stopped" ? "Stopped." : "The answer is there.");
    }
    // What was stopped before its first word, or failed, is not part of the conversation.
    turn.failed = reason === "failed" || !answer.text;
    answer.finish({ prompt, champion, model: hash }, reason);
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
