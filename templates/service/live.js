// Keeps a page as it would be if it were loaded now. Everything on it is rendered by the server: parts
// marked by `data-live` are fetched with the page and put in place where they have changed.
"use strict";

const PAUSE = 3000;
let fetching = false;
let again = false;

/** Fetches the page anew, and puts what has changed in place. */
async function refresh() {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
    if (answer.redirected) {
      // The session is over.
      location.reload();
      return;
    }
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
      if (fresh && !fresh.isEqualNode(part)) replace(part, fresh);
    }
  } catch {
    // The server is away; the next attempt comes anyway.
  } finally {
    fetching = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

/** Puts `fresh` in the place of `part`; who has the focus in it keeps it. */
function replace(part, fresh) {
  const held = part.contains(document.activeElement) ? document.activeElement : null;
  const controls = "a, button";
  const index = held ? [...part.querySelectorAll(controls)].indexOf(held) : -1;
  const found = document.adoptNode(fresh);
  part.replaceWith(found);
  if (!held) return;
  const href = held.getAttribute("href");
  const same = href && [...found.querySelectorAll("a")].find((a) => a.getAttribute("href") === href);
  (same || found.querySelectorAll(controls)[index] || document.getElementById("main")).focus();
}

/** Adds a line to the log, and shows it to who looks at its end. */
function append(list, { at, text }) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const moment = new Date(at).toISOString();
  const time = document.createElement("time");
  time.dateTime = moment;
  time.textContent = moment.slice(11, 19);
  const words = document.createElement("span");
  words.textContent = text;
  const line = document.createElement("li");
  line.append(time, " ", words);
  list.append(line);
  if (atEnd) list.scrollTop = list.scrollHeight;
}

/** Follows a conversion until it is over. */
function follow(log) {
  log.scrollTop = log.scrollHeight;
  if (log.hasAttribute("data-final")) return;
  const address = `/ui/jobs/${log.dataset.job}/events?after=${log.dataset.after}`;
  const events = new EventSource(address);
  events.addEventListener("log", (event) => append(log, JSON.parse(event.data)));
  events.addEventListener("job", refresh);
  events.addEventListener("end", () => {
    events.close();
    refresh();
  });
}

const log = document.getElementById("log");
if (log) {
  follow(log);
} else if (document.querySelector("[data-live]")) {
  setInterval(() => {
    if (!document.hidden) refresh();
  }, PAUSE);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
}
