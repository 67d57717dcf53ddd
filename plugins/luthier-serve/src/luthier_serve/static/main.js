// The page: who gets in, and which view is shown.

import * as api from "./api.js";
import { Chat } from "./chat.js";
import { CHOICES, Compare } from "./compare.js";
import { byId, complain, tell } from "./dom.js";
import { Feedback } from "./feedback.js";
import { Review } from "./review.js";
import { listen } from "./shortcuts.js";

const views = {};
let shown = null;

function show(name) {
  if (!(name in views)) return;
  shown = name;
  for (const each of document.querySelectorAll("main")) each.hidden = each.id !== name;
  for (const button of document.querySelectorAll("#views button")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  byId("terms").hidden = !(views.feedback && views[name].composer);
  tell("");
  views[name].open();
  // The view of the queue counts it itself.
  if (name !== "review") views.review?.count().catch(complain);
}

function askForToken(refused) {
  for (const each of document.querySelectorAll("main")) each.hidden = each.id !== "sign-in";
  byId("views").hidden = byId("terms").hidden = true;
  shown = null;
  byId("token").value = "";
  byId("token").focus();
  if (sessionStorage.length) complain(refused);
}

/** Whether the server keeps feedback: one that was told to take none has no such route. */
async function keepsFeedback() {
  try {
    await api.counts();
    return true;
  } catch (error) {
    if (error.status === 404) return false;
    complain(error); // Such as a log that is full or locked now, and may not be later.
    return true;
  }
}

/** On which terms feedback is given; the browser remembers them. */
function terms() {
  return { consent: byId("consent").checked, person: byId("person").value.trim() || null };
}

function rememberTerms() {
  byId("consent").checked = localStorage.getItem("luthier-consent") === "yes";
  byId("person").value = localStorage.getItem("luthier-person") ?? "";
  byId("terms").addEventListener("change", () => {
    localStorage.setItem("luthier-consent", byId("consent").checked ? "yes" : "no");
    localStorage.setItem("luthier-person", byId("person").value.trim());
  });
}

async function start() {
  let models;
  try {
    models = await api.models();
  } catch (error) {
    if (error.status !== 401) complain(error);
    return;
  }
  if (views.chat) return show("chat"); // Signed in again.
  const feedback = await keepsFeedback();
  views.chat = new Chat(feedback ? terms : null);
  views.chat.offer(models);
  if (feedback) {
    views.feedback = new Feedback();
    views.review = new Review();
    // What is chosen there is feedback.
    if (models.length > 1) views.compare = new Compare(terms, models);
  }
  for (const button of document.querySelectorAll("#views button")) {
    button.hidden = !(button.dataset.view in views);
    button.addEventListener("click", () => show(button.dataset.view));
  }
  byId("views").hidden = false;
  show("chat");
}

/** What a key does in the views that can do so. */
function inView(does) {
  return () => {
    if (shown) does(views[shown]);
  };
}

listen({
  "/": inView((view) => view.composer?.focus()),
  n: inView((view) => view.begin?.()),
  j: inView((view) => view.move?.(1)),
  k: inView((view) => view.move?.(-1)),
  ...Object.fromEntries(CHOICES.map(({ key }) => [key, inView((view) => view.choose?.(key))])),
  1: () => show("chat"), 2: () => show("feedback"), 3: () => show("review"), 4: () => show("compare"),
}, () => {
  const busy = [views[shown], ...Object.values(views)].find((view) => view?.composer?.busy);
  busy?.composer.stop();
  return Boolean(busy);
});
rememberTerms();
api.whenSignedOut(askForToken);
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  api.keepToken(byId("token").value);
  start();
});
// The printed address, opened in a tab where the page already is.
addEventListener("hashchange", () => api.takeToken() && location.reload());
api.takeToken();
start();
