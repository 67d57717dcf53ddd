// Elements made of text: nothing here, nor anywhere on the page, reads markup.

/**
 * A new element.
 * @param {string} tag its name
 * @param {object} attributes by name; a function listens to the event of that name; true is an attribute without a
 *   value, and false, null or undefined is none
 * @param {...(Node|string)} children in their order; a string is text, whatever it holds
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A thumb, up for a good answer and down for a bad one: drawn, since not every machine has letters for it. */
export function thumb(vote) {
  const label = vote === 1 ? "Good answer" : "Bad answer";
  return element("span", { class: vote === 1 ? "thumb" : "thumb down", role: "img", "aria-label": label });
}

/** A button that a key presses too, which it shows. */
export function keyButton(name, key, click, kind = "") {
  return element("button", {
    type: "button", class: kind, "data-key": key, "aria-keyshortcuts": key, click,
  }, name, element("kbd", { "aria-hidden": "true" }, key));
}

/** Fill a list with figures, each with its name. */
export function showFigures(list, figures) {
  list.replaceChildren(...Object.entries(figures).map(([name, figure]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, String(figure)))));
}

/** The element of an id, which the page has. */
export const byId = (id) => document.getElementById(id);

/** Tell what happened, in the line that screen readers read out. */
export function tell(text) {
  byId("problem").textContent = "";
  byId("status").textContent = text;
}

/** Tell what went wrong. */
export function complain(error) {
  byId("status").textContent = "";
  byId("problem").textContent = error.message;
}

/**
 * A form for a longer text: Ctrl+Enter saves, Escape leaves it.
 * @param {{label: string, text: string, save: function(string): Promise, leave: function()}} options
 */
export function textForm({ label, text, save, leave }) {
  const field = element("textarea", { rows: 5, "aria-label": label, keydown: keys });
  field.value = text;
  const form = element("form", { class: "edit", submit: submitted },
    field,
    element("div", { class: "row" },
      element("span", { class: "quiet" }, "Ctrl+Enter saves, Escape leaves it"),
      element("button", { type: "button", click: leave }, "Cancel"),
      element("button", { type: "submit", class: "primary" }, "Save")));

  function keys(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submitted(event);
    if (event.key === "Escape") {
      event.stopPropagation();
      leave();
    }
  }

  let saving = false;

  async function submitted(event) {
    event.preventDefault();
    if (saving) return;
    if (!field.value.trim()) return complain(new Error("Write what the model should have answered."));
    saving = true;
    try {
      await save(field.value);
    } catch (error) {
      complain(error); // What was written stays in the form.
    } finally {
      saving = false;
    }
  }

  return { form, focus: () => field.focus() };
}
