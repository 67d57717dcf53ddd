// The feedback so far: how much there is of each kind, and the rows.

import * as api from "./api.js";
import { byId, complain, element, showFigures } from "./dom.js";
import { rowParts } from "./row.js";

/** The view `feedback`. */
export class Feedback {
  #last = null;

  constructor() {
    byId("state").addEventListener("change", () => this.open());
    byId("more").addEventListener("click", () => this.#more().catch(complain));
  }

  async open() {
    this.#last = null;
    byId("rows").replaceChildren();
    try {
      this.#count(await api.counts());
      await this.#more();
    } catch (error) {
      complain(error);
    }
  }

  #count({ total, vote, state }) {
    showFigures(byId("counts"), {
      "in all": total.rows, "good": vote["1"] ?? 0, "bad": vote["-1"] ?? 0, "corrections": total.corrections,
      "for training": total["may be learnt from"], "to review": state.new ?? 0,
    });
  }

  async #more() {
    const { data, has_more: more } = await api.rows({ state: byId("state").value, before: this.#last });
    byId("rows").append(...data.map((row) => element("li", { class: "card" }, ...rowParts(row))));
    this.#last = data.at(-1)?.sequence ?? this.#last;
    byId("more").hidden = !more;
    if (!byId("rows").children.length) byId("rows").append(element("li", { class: "quiet" }, "There is none yet."));
  }
}
