// The page: who gets in, and which view is shown.

import * as api from "./api.js";
import { Chat } from "./chat.js";
import { byId, complain, tell } from "./dom.js";
import { Feedback } from "./feedback.js";
import { Review } from "./review.js";
import { listen } from "./shortcuts.js";

const views = {};

function show(name) {
  if (!(name in views)) return;
  for (const each of document.querySelectorAll("main")) each.hidden = each.id !== name;
  for (const button of document.querySelectorAll("#views button")) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  tell("");
  views[name].open();
  // The view of the queue counts it itself.
  if (name !== "review") views.review?.count().catch(complain);
}

function askForToken(refused) {
  for (const each of document.querySelectorAll("main")) each.hidden = each.id !== "sign-in";
  byId("views").hidden = true;
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
  }
  for (const button of document.querySelectorAll("#views button")) {
    button.hidden = !(button.dataset.view in views);
    button.addEventListener("click", () => show(button.dataset.view));
  }
  byId("terms").hidden = !feedback;
  byId("views").hidden = false;
  show("chat");
}

function inChat(does) {
  return () => {
    if (views.chat && !byId("chat").hidden) does(views.chat);
  };
}

listen({
  "/": inChat((chat) => chat.message.focus()),
  n: inChat((chat) => chat.begin()),
  j: inChat((chat) => chat.move(1)),
  k: inChat((chat) => chat.move(-1)),
  1: () => show("chat"), 2: () => show("feedback"), 3: () => show("review"),
}, () => {
  if (!views.chat?.busy) return false;
  views.chat.stop();
  return true;
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
