// The server's API: each request with the token, each error in words.

const TOKEN = "luthier-token";
let signedOut = () => {};

/** What the server refused, or why it could not be asked. */
export class Refused extends Error {
  /** @param {number} status of HTTP; 0 if there was no answer */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Call this when the server wants a token, or another one. */
export function whenSignedOut(call) {
  signedOut = call;
}

/** Keep a token for as long as this tab is open. */
export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token.trim());
}

/** Take the token from the address's fragment, which browsers send to nobody, and out of the address. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return false;
  keepToken(given);
  history.replaceState(null, "", location.pathname);
  return true;
}

async function send(path, { body, signal } = {}) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN);
  // A header holds no other characters; such a token is wrong anyhow, and the server says so.
  if (token && /^[\x21-\x7e]+$/.test(token)) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, signal, body: body && JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Does it still run?");
  }
  if (answer.ok) return answer;
  const refused = new Refused(answer.status, await reason(answer));
  if (answer.status === 401) signedOut(refused);
  throw refused;
}

async function reason(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    // What stands between the page and the server may answer in another form.
    return `The server answered ${answer.status}.`;
  }
}

async function json(path, body) {
  return (await send(path, { body })).json();
}

export const models = async () => (await json("/v1/models")).data;
export const give = (feedback) => json("/v1/feedback", feedback);
export const counts = () => json("/v1/feedback/counts");
export const review = (id, said) => json(`/v1/feedback/${encodeURIComponent(id)}/review`, said);

/** The newest rows of feedback, the newest first. */
export function rows({ state, before, limit = 20 }) {
  const query = new URLSearchParams({ limit });
  if (state) query.set("state", state);
  if (before) query.set("before", before);
  return json(`/v1/feedback?${query}`);
}

/** An id for feedback. `crypto.randomUUID` is not there on pages that came without TLS from another machine. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Have a model answer.
 * @param {string} model its name
 * @param {object[]} messages the conversation
 * @param {AbortSignal} signal that stops it
 * @param {function(string)} append takes the pieces of the answer as they come
 * @returns {Promise<{reason: string, hash: ?string, error: ?Error}>} why it ended: `stop`, `length`, `stopped`, or
 *   `failed` with the error; and which model it was
 */
export async function write(model, messages, signal, append) {
  const written = { reason: "failed", hash: null, error: null };
  try {
    for await (const chunk of chat(model, messages, signal)) {
      written.hash = chunk.system_fingerprint;
      const [choice] = chunk.choices;
      append(choice?.delta.content ?? "");
      written.reason = choice?.finish_reason ?? written.reason;
    }
  } catch (error) {
    if (error.name === "AbortError") written.reason = "stopped";
    else Object.assign(written, { reason: "failed", error });
  }
  return written;
}

/** The chunks of an answer, as they come. */
async function* chat(model, messages, signal) {
  const answer = await send("/v1/chat/completions", { body: { model, messages, stream: true }, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) throw new Refused(0, "The answer broke off: the server is gone.");
      const events = (unread + value).split("\n\n");
      unread = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Refused(0, chunk.error.message);
        yield chunk;
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // Of a stream that has failed it fails again.
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The answer broke off: the server is gone.");
  }
}
