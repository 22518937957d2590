// Refreshes and filters the page, which is complete without this script.
"use strict";

(() => {
  const EVERY = 15000; // milliseconds between refreshes
  const PATIENCE = 20000; // timeout of a refresh, in milliseconds
  const LIVE = ["looked", "overall", "figures", "places", "backups", "unfinished", "refusals", "zone"];

  const byId = (id) => document.getElementById(id);
  const filter = byId("filter");
  let timer = 0;
  let asking = null;

  function applyFilter() {
    if (!filter) return;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    const bodies = document.querySelectorAll("#backups tbody");
    for (const body of bodies) {
      const parts = body.querySelectorAll(".bucket bdi, .series, .state");
      const text = Array.from(parts, (part) => part.textContent).join(" ").toLowerCase();
      body.hidden = !words.every((word) => text.includes(word));
      if (!body.hidden) shown += 1;
    }
    for (const list of document.querySelectorAll("#backups > details")) {
      list.hidden = !list.querySelector("tbody:not([hidden])");
    }
    byId("found").textContent = words.length ? `${shown} of ${bodies.length} buckets` : "";
  }

  // Sections stay open or closed.
  function keepOpen(fresh) {
    for (const old of document.querySelectorAll("details[id]")) {
      const same = fresh.querySelector(`details[id="${old.id}"]`);
      if (same) same.open = old.open;
    }
  }

  function show(fresh) {
    keepOpen(fresh);
    const focused = document.activeElement;
    const inside = focused && focused.closest("details[id]");
    const place = window.scrollY;
    const before = byId("overall").textContent;
    for (const id of LIVE) {
      const old = byId(id);
      const now = fresh.getElementById(id);
      if (old && now) old.replaceWith(document.adoptNode(now));
    }
    document.title = fresh.title;
    const icon = document.querySelector("link[rel=icon]");
    const other = fresh.querySelector("link[rel=icon]").getAttribute("href");
    if (icon.getAttribute("href") !== other) icon.setAttribute("href", other);
    applyFilter();
    if (inside && !document.contains(focused)) {
      const same = byId(inside.id);
      if (same) same.querySelector("summary").focus({ preventScroll: true });
    }
    if (window.scrollY !== place) window.scrollTo(window.scrollX, place);
    const after = byId("overall");
    if (after.textContent !== before) {
      byId("news").textContent = after.querySelector("h1").textContent;
    }
  }

  function say(reason) {
    const connection = byId("connection");
    document.body.classList.toggle("lost", reason !== "");
    let text = "";
    if (reason) {
      const time = document.querySelector("#looked time");
      const since = time ? ` Data as of ${time.textContent}.` : "";
      text = `${reason}${since}`;
      if (!document.title.startsWith("Lost: ")) document.title = `Lost: ${document.title}`;
    }
    // Otherwise a screen reader would read it again and again.
    if (connection.textContent !== text) connection.textContent = text;
  }

  async function ask() {
    asking = new AbortController();
    const late = setTimeout(() => asking.abort(), PATIENCE);
    try {
      const answer = await fetch(location.pathname, {
        cache: "no-store",
        signal: asking.signal,
      });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const heading = fresh.querySelector("#overall h1");
      if (answer.ok && heading && fresh.getElementById("figures")) {
        // Elements that this page lacks cannot be replaced.
        if (!byId("figures") || !filter !== !fresh.getElementById("filter")) {
          return location.reload();
        }
        show(fresh);
        say("");
      } else if (heading) {
        say(`${heading.textContent}.`);
      } else {
        say(`Connection lost: the server answered ${answer.status}.`);
      }
    } catch {
      say("Connection lost.");
    } finally {
      clearTimeout(late);
      asking = null;
    }
  }

  async function look() {
    clearTimeout(timer);
    if (document.hidden || asking) return;
    await ask();
    if (!document.hidden) timer = setTimeout(look, EVERY);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else look();
  });

  if (filter) {
    byId("filtering").hidden = false;
    filter.addEventListener("input", applyFilter);
    // A browser may restore the text of the filter.
    applyFilter();
  }
  document.documentElement.classList.add("live");
  timer = setTimeout(look, EVERY);
})();
