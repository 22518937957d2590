// Refreshes and filters the page, which is complete without this script.
"use strict";

(() => {
  const EVERY = 15000; // milliseconds between refreshes
  const PATIENCE = 20000; // timeout of a refresh, in milliseconds
  const LIVE = ["looked", "overall", "problems", "nodes", "figures", "places", "backups", "first", "unfinished", "refusals", "zone"];

  const NARROW = matchMedia("(max-width: 39.99rem)"); // as in page.css

  const byId = (id) => document.getElementById(id);
  const filter = byId("filter");
  const opened = new Set(); // ids of what the filter opened
  let timer = 0;
  let asking = null;

  // If the words changed, closed sections and folds with matches open.
  function applyFilter(changed) {
    if (!filter) return;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (parts) => {
      const text = Array.from(parts, (part) => part.textContent).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    if (changed) closeFound();
    let shown = 0;
    const bodies = document.querySelectorAll("#backups tbody");
    for (const body of bodies) {
      const parts = body.querySelectorAll(".bucket bdi, .problem, .pause, .series, .state");
      body.hidden = !matches(parts);
      if (body.hidden) continue;
      shown += 1;
      const fold = changed && words.length && body.querySelector(".fold details");
      const behind = (part) => fold.compareDocumentPosition(part) & Node.DOCUMENT_POSITION_FOLLOWING;
      if (fold && !matches(Array.from(parts).filter((part) => !behind(part)))) openFound(fold);
    }
    for (const list of document.querySelectorAll("#backups > details")) {
      list.hidden = !list.querySelector("tbody:not([hidden])");
      if (changed && words.length && !list.hidden) openFound(list);
    }
    byId("found").textContent = words.length ? `${shown} of ${bodies.length} buckets` : "";
  }

  function openFound(details) {
    if (details.open) return;
    details.open = true;
    opened.add(details.id);
  }

  // Close what the filter opened.
  function closeFound() {
    for (const id of opened) {
      const details = byId(id);
      if (details) details.open = false;
    }
    opened.clear();
  }

  // Sections stay open or closed. On a phone, buckets in order are closed at first.
  function keepOpen(fresh) {
    for (const now of fresh.querySelectorAll("details[id]")) {
      const old = fresh === document ? null : byId(now.id);
      if (old) now.open = old.open;
      else if (now.id === "calm" && NARROW.matches) now.open = false;
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
    applyFilter(false);
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

  document.addEventListener("click", (event) => {
    const link = event.target.closest("#places a");
    const section = link && byId(link.hash.slice(1));
    if (section) section.open = true;
  });

  keepOpen(document);
  if (filter) {
    byId("filtering").hidden = false;
    filter.addEventListener("input", () => applyFilter(true));
    // A browser may restore the text of the filter.
    applyFilter(true);
  }
  document.documentElement.classList.add("live");
  timer = setTimeout(look, EVERY);
})();
