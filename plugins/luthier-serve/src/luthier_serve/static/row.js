// A row of the log of feedback, as people read it.

import { element, thumb } from "./dom.js";

const ROLES = { user: "Asked", assistant: "Answered before", system: "Told beforehand" };

/** The parts of a row: who said it and when, the conversation, the answer, and what was said of it. */
export function rowParts(row) {
  const facts = element("p", { class: "facts" },
    ...(row.vote === null ? [] : [thumb(row.vote)]),
    element("span", { class: `state ${row.state}` }, row.state),
    element("time", { datetime: row.time }, new Date(row.time).toLocaleString()),
    element("span", {}, `from ${row.source}${row.person ? `, ${row.person}` : ""}`),
    element("span", {}, row.consent ? "may be learnt from" : "no consent to training"),
    ...(row.champion ? [element("span", {}, row.champion)] : []));
  const parts = [facts, ...row.prompt.map((turn) => part(ROLES[turn.role], turn.content)), part("Answer", row.answer)];
  if (row.correction !== null) parts.push(part("Correction", row.correction));
  if (row.tags.length) {
    parts.push(element("ul", { class: "tags", "aria-label": "Tags" }, ...row.tags.map((tag) => element("li", {}, tag))));
  }
  return parts;
}

function part(name, text) {
  return element("div", { class: "part" }, element("h3", {}, name), element("div", { class: "text" }, text));
}
