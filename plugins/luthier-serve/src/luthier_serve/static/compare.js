// Two models side by side: one prompt, two answers, and which model wrote which is told once a person has chosen.

import { Answer } from "./answer.js";
import * as api from "./api.js";
import { Composer } from "./composer.js";
import { byId, complain, element, keyButton, showFigures, tell, thumb } from "./dom.js";

/** What a person may say of two answers: what is voted on A and on B; whether one of them is the better one. */
export const CHOICES = [
  { key: "a", says: "A is better", votes: [1, -1], better: 0 },
  { key: "b", says: "B is better", votes: [-1, 1], better: 1 },
  { key: "u", says: "Both are good", votes: [1, 1] },
  { key: "d", says: "Both are bad", votes: [-1, -1] },
];

/** The view `compare`. */
export class Compare {
  #models;
  #pair;
  #terms;
  #now = null;
  #tallies = new Map();

  /**
   * @param {function(): object} terms see `Answer`
   * @param {object[]} models that are served, two or more
   */
  constructor(terms, models) {
    this.#terms = terms;
    this.#models = models.map(({ id }) => id);
    const champion = this.#models.find((name) => name === "champion" || name.startsWith("champion:")) ?? this.#models[0];
    this.#pair = [champion, this.#models.find((name) => name !== champion)];
    [byId("first"), byId("second")].forEach((select, index) =>
      select.addEventListener("change", () => this.#choosePair(index, select.value)));
    this.#offerPair(true);
    this.composer = new Composer(byId("prompt-form"), {
      label: "Prompt for both", placeholder: "Write to both models", write: (text, signal) => this.#answer(text, signal),
    });
  }

  open() {
    if (this.#now?.offered) byId("compared").focus();
    else this.composer.focus();
  }

  /** Say which answer is better, by the key of a choice: it is shown whose they are once the server keeps that. */
  async choose(key) {
    const now = this.#now;
    const choice = now?.offered?.find((each) => each.key === key);
    if (!choice || now.saving) return;
    now.saving = true;
    try {
      await this.#keep(now, choice);
    } catch (error) {
      return complain(error); // The choice is still there; the same ids are sent again.
    } finally {
      now.saving = false;
    }
    this.#count(now, choice);
    if (this.#now !== now) return; // Another prompt was sent meanwhile.
    this.#tellWhose(now, choice);
    const [a, b] = now.sides;
    tell(`Saved: ${choice.says}. A was ${a.model}, B was ${b.model}.`);
    this.composer.focus();
  }

  /** Let no model be compared with itself: the other one becomes what this one was. */
  #choosePair(index, name) {
    if (this.#pair[1 - index] === name) this.#pair[1 - index] = this.#pair[index];
    this.#pair[index] = name;
    this.#offerPair(true);
  }

  /** While it is not told which model wrote what, no model is named here. */
  #offerPair(offered) {
    [byId("first"), byId("second")].forEach((select, index) => {
      const options = offered ? this.#models.map((name) => element("option", { value: name }, name)) : [];
      select.replaceChildren(...options);
      if (offered) select.value = this.#pair[index];
    });
    byId("pair").hidden = !offered;
    byId("blind").hidden = offered;
  }

  async #answer(text, signal) {
    const now = { id: api.newId(), prompt: [{ role: "user", content: text }], sides: this.#drawSides() };
    this.#now = now;
    this.#offerPair(false);
    this.#show(now, text);
    tell("Both models write…");
    await Promise.all(now.sides.map((side) => this.#write(side, now, signal)));
    if (now.sides.every(({ reason }) => reason === "stop" || reason === "length")) return this.#offer(now);
    this.#tellWhose(now);
    const failed = now.sides.find(({ error }) => error);
    if (failed) complain(failed.error);
    else tell("Stopped: half an answer is compared with none.");
  }

  /** The two models in an order that is drawn anew each time. */
  #drawSides() {
    const [drawn] = crypto.getRandomValues(new Uint8Array(1));
    const models = drawn % 2 ? this.#pair : this.#pair.toReversed();
    return models.map((model, index) => {
      const letter = "AB"[index];
      return { letter, model, heading: element("h2", {}, letter), answer: new Answer(null, `Answer ${letter}`) };
    });
  }

  #show(now, text) {
    now.after = element("div", { class: "after" });
    byId("compared").replaceChildren(
      element("div", { class: "message", role: "group", "aria-label": "You" }, text),
      element("div", { class: "sides" }, ...now.sides.map(({ heading, answer }) =>
        element("section", {}, heading, answer.element))),
      now.after);
  }

  async #write(side, { prompt }, signal) {
    const { model, answer } = side;
    Object.assign(side, await api.write(model, prompt, signal, (piece) => answer.append(piece)));
    if (side.error) answer.fail(side.error, () => this.composer.fill(prompt[0].content));
    answer.finish({}, side.reason);
  }

  #offer(now) {
    const [a, b] = now.sides;
    now.person = this.#terms().person;
    const same = a.answer.text === b.answer.text;
    now.offered = same ? CHOICES.filter(({ better }) => better === undefined) : CHOICES;
    const buttons = now.offered.map(({ key, says }) => keyButton(says, key, () => this.choose(key)));
    now.after.append(...(same ? [element("p", { class: "quiet" }, "Both wrote the same.")] : []),
      element("div", { class: "tools", role: "group", "aria-label": "Which is better?" }, ...buttons));
    tell("Both answers are there. Which is better?");
    // Who writes the next prompt already goes on with that.
    if (this.composer.waits) byId("compared").focus();
  }

  async #keep({ id, prompt, sides, person }, { votes }) {
    const { consent } = this.#terms();
    // Both in one request: the log has both, or none.
    await api.give(sides.map(({ letter, model, hash, answer }, index) => ({
      id: `${id}-${letter}`, comparison: id, prompt, answer: answer.text, champion: model, model: hash,
      vote: votes[index], tags: ["comparison"], source: "page", consent, ...(person ? { person } : {}),
    })));
  }

  /** A tally is of two models, not of their names: where one of them changes, another one begins. */
  #count(now, { says, better }) {
    const key = JSON.stringify(now.sides.map(({ model, hash }) => [model, hash]).sort());
    const outcomes = [...now.sides.map(({ model }) => `${model} is better`).sort(), "Both are good", "Both are bad"];
    now.tally = this.#tallies.get(key) ?? Object.fromEntries(outcomes.map((outcome) => [outcome, 0]));
    now.tally[better === undefined ? says : `${now.sides[better].model} is better`] += 1;
    this.#tallies.set(key, now.tally);
  }

  #tellWhose(now, choice) {
    now.offered = null;
    now.sides.forEach(({ letter, model, heading }, index) =>
      heading.replaceChildren(`${letter}: ${model}`, ...(choice ? [thumb(choice.votes[index])] : [])));
    now.after.replaceChildren();
    if (choice) {
      const list = element("dl", { class: "figures" });
      showFigures(list, now.tally);
      now.after.append(element("div", { role: "group", "aria-label": "Choices so far" }, list));
    }
    this.#offerPair(true);
  }
}
