// Pushes files as resumable uploads of the IETF draft, one file at a time: PUT creates an
// upload, PATCH appends a part, HEAD asks how many bytes the server has. Whatever happens
// to the connection, the next request begins there.
//
// A file counts as stored only with a receipt from the server. The token is kept in this
// page's memory, and sent only in the Authorization header. Texts from elsewhere become
// text nodes, never markup. XMLHttpRequest, because fetch() reports no upload progress.
"use strict";

(() => {
  const KIB = 1024;
  const MIB = 1024 * KIB;

  // Bytes of a part. A part that is cut has to be sent again, so a slow or bad line gets
  // small parts.
  const FIRST_PART = 4 * MIB;
  const LEAST_PART = 256 * KIB;
  const MOST_PART = 16 * MIB;
  const QUICK = 2000; // milliseconds: after a quicker part, the next one is larger
  const SLOW = 8000; // after a slower one, smaller

  // Milliseconds without any progress after which a request counts as lost; more for an
  // answer that may wait for the server's hooks.
  const SILENCE = 60 * 1000;
  const HOOKS = 15 * 60 * 1000;

  const FIRST_PAUSE = 1000; // milliseconds between two tries, doubled each time
  const MOST_PAUSE = 60 * 1000;
  const MOST_TRIES = 8; // for errors that are not the line's
  const ANNOUNCE = 30 * 1000; // milliseconds between announcements of the progress

  // Subtle is missing on plain http, except on localhost.
  const SUBTLE = window.isSecureContext && window.crypto ? window.crypto.subtle : null;
  const BASE = new URL("./", window.location.href);
  const TITLE = document.title;

  const byId = (id) => document.getElementById(id);
  const token = byId("token");
  const chooser = byId("chooser");
  const items = [];

  // Words.

  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  function sizeText(bytes) {
    if (bytes < KIB) return count(bytes, "byte");
    let unit = -1;
    do {
      bytes /= KIB;
      unit += 1;
    } while (bytes >= 1023.95 && unit < 4);
    return `${bytes.toFixed(1)} ${["KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
  }

  function timeText(seconds) {
    if (seconds < 90) return count(Math.max(1, Math.round(seconds)), "second");
    const minutes = Math.round(seconds / 60);
    if (minutes < 90) return count(minutes, "minute");
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function announce(text) {
    byId("news").textContent = text;
  }

  // Requests.

  // A refusal or an error, in words.
  // again: whether another try may succeed. limited: only after some tries, the user is
  // asked. after: seconds that the server wants. smaller: a smaller part may pass.
  class Trouble extends Error {
    constructor(text, { again, limited, after, smaller, about } = {}) {
      super(text);
      Object.assign(this, { again, limited, after, smaller, about });
    }
  }

  // Ends the work on a file that the user has paused or canceled.
  class Stopped extends Error {}

  // Sends a request; resolves to its status (0: no answer), headers and text.
  // patience: milliseconds to wait for the answer. sent: called with the bytes sent so far.
  function ask(item, method, url, headers, body, patience, sent) {
    return new Promise((resolve, reject) => {
      const { signal } = item.turn || new AbortController();
      const request = new XMLHttpRequest();
      let timer = 0;
      const stop = () => request.abort();
      const watch = (time) => {
        clearTimeout(timer);
        timer = setTimeout(stop, time);
      };
      request.open(method, url);
      request.setRequestHeader("Authorization", `Bearer ${item.token}`);
      for (const [name, value] of Object.entries(headers)) {
        request.setRequestHeader(name, value);
      }
      if (sent) {
        request.upload.onprogress = (event) => {
          watch(SILENCE);
          sent(event.loaded);
        };
      }
      request.upload.onload = () => watch(patience);
      request.onloadend = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", stop);
        if (signal.aborted) {
          reject(new Stopped());
          return;
        }
        const plain = (request.getResponseHeader("Content-Type") || "").startsWith("text/plain");
        resolve({
          status: request.status,
          text: plain ? request.responseText.trim().slice(0, 1000) : "",
          header: (name) => request.getResponseHeader(name),
        });
      };
      if (signal.aborted) {
        reject(new Stopped());
        return;
      }
      signal.addEventListener("abort", stop);
      watch(body && body.size ? SILENCE : patience);
      request.send(body);
    });
  }

  function whole(text) {
    return /^[0-9]{1,16}$/.test(text || "") ? Number(text) : null;
  }

  // What an answer means that is not the expected one.
  function trouble(answer) {
    const { status, text } = answer;
    const why = text ? `: ${text}` : "";
    const seconds = whole(answer.header("Retry-After"));
    const after = seconds === null ? 0 : Math.min(seconds, 3600);
    switch (status) {
      case 0:
        return new Trouble("The connection to the server failed.", { again: true });
      case 401:
        return new Trouble(`The server cannot write to your bucket. Tell its operator${why}`);
      case 403:
        if (text === "the bucket is retired") {
          return new Trouble("This bucket is retired: it accepts no more files.");
        }
        return new Trouble("The server does not accept this token.", { about: "token" });
      case 405:
        return new Trouble("A file with this name exists already, and cannot be replaced.", {
          about: "name",
        });
      case 408:
      case 425:
      case 429:
        return new Trouble("The connection is too slow.", { again: true, after });
      case 409:
        return new Trouble(`The server refuses this file${why}`);
      case 412:
      case 400:
      case 415:
        return new Trouble(`The server refuses the request${why}`);
      case 413:
        return new Trouble(`The file is too large for the server${why}`, { smaller: true });
      case 422:
        return new Trouble("Some data changed on its way to the server.", {
          again: true,
          limited: true,
        });
      case 500:
        return new Trouble("The server has an internal error.", {
          again: true,
          limited: true,
          after,
        });
      case 502:
      case 503:
      case 504:
        return new Trouble(`The server is not ready${why}.`, { again: true, after });
      case 507:
        return new Trouble(`The server has no space for this file${why}`);
      default:
        if (status < 300) {
          // Such as the login page of a wireless network.
          return new Trouble("The answer is not from file-bucket.", { again: true });
        }
        return new Trouble(`The server refuses the request (status ${status})${why}`);
    }
  }

  // Makes the Trouble of a file that cannot be read.
  async function read(blob) {
    try {
      return await blob.arrayBuffer();
    } catch (error) {
      throw new Trouble(
        "The file cannot be read. If it was changed, moved or deleted, choose it again."
      );
    }
  }

  const bytesOf = async (data) => new Uint8Array(await SUBTLE.digest("SHA-256", data));

  const hex = (bytes) => Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");

  // The digest of a part (RFC 9530).
  async function digest(data) {
    return `sha-256=:${btoa(String.fromCharCode(...(await bytesOf(data))))}:`;
  }

  function urlOf(item) {
    try {
      return new URL(encodeURIComponent(item.name), BASE);
    } catch (error) {
      throw new Trouble("The name is not valid Unicode.", { about: "name" });
    }
  }

  // Takes the receipt, if the answer has one.
  function store(item, answer) {
    const sum = answer.header("X-Checksum-Sha256") || "";
    if (!/^[0-9a-f]{64}$/.test(sum)) throw trouble(answer);
    item.receipt = `${sum}  ${item.name}`;
    item.said = answer.text === item.receipt ? "" : answer.text;
    item.sent = item.file.size;
  }

  // The digest of a small file. With it, the server finds the file or its upload again if
  // an answer was lost.
  async function promise(item) {
    if (!SUBTLE || item.file.size > FIRST_PART) return {};
    return { "X-Checksum-Sha256": hex(await bytesOf(await read(item.file))) };
  }

  async function create(item) {
    const headers = {
      "Upload-Complete": "?0",
      "Upload-Length": item.file.size,
      ...(await promise(item)),
    };
    const url = urlOf(item);
    const answer = await ask(item, "PUT", url, headers, null, HOOKS);
    const location = answer.header("Location");
    if (answer.status === 201 && location) {
      item.upload = new URL(location, url);
      item.offset = whole(answer.header("Upload-Offset")) || 0;
    } else if (answer.status === 200) {
      store(item, answer);
    } else if (answer.status === 501) {
      item.whole = true;
    } else {
      throw trouble(answer);
    }
  }

  function restart(item) {
    item.upload = item.offset = null;
    item.sent = item.best = 0;
    throw new Trouble("The server does not have the first part any more.", {
      again: true,
      limited: true,
    });
  }

  async function look(item) {
    const answer = await ask(item, "HEAD", item.upload, {}, null, item.ended ? HOOKS : SILENCE);
    const offset = whole(answer.header("Upload-Offset"));
    if (answer.status === 404 || answer.status === 410) restart(item);
    if (answer.status !== 204 || offset === null || offset > item.file.size) throw trouble(answer);
    item.offset = offset;
  }

  // Sends the next part. After the last one, an empty part is answered with the receipt.
  async function append(item) {
    const begin = item.offset;
    const end = Math.min(begin + item.part, item.file.size);
    const last = end === item.file.size;
    const slice = item.file.slice(begin, end);
    const headers = {
      "Content-Type": "application/partial-upload",
      "Upload-Offset": begin,
      "Upload-Complete": last ? "?1" : "?0",
    };
    if (SUBTLE) headers["Content-Digest"] = await digest(await read(slice));
    else await read(slice.slice(0, 1)); // whether it can be read
    item.offset = null; // until the server tells
    item.ended = item.ended || last;
    const started = performance.now();
    const answer = await ask(
      item,
      "PATCH",
      item.upload,
      headers,
      slice, // Chromium sends an ArrayBuffer ten times slower than this
      last ? HOOKS : SILENCE,
      (loaded) => moved(item, begin + loaded)
    );
    if (last) note(item, answer);
    const offset = whole(answer.header("Upload-Offset"));
    if (answer.status === 200 && last) {
      store(item, answer);
    } else if (answer.status === 204 && offset === end) {
      item.offset = offset;
      moved(item, offset);
      const took = performance.now() - started;
      if (took < QUICK && end - begin === item.part) item.part = Math.min(item.part * 2, item.most);
      if (took > SLOW) smaller(item);
    } else if (answer.status === 404 || answer.status === 410) {
      restart(item);
    } else if (answer.status === 409 && answer.header("Upload-Complete") === "?0") {
      throw new Trouble("The server expects another part.", { again: true, limited: true });
    } else {
      const found = trouble(answer);
      if (answer.status === 0) smaller(item);
      if (found.smaller && end - begin > LEAST_PART) {
        // A proxy has a limit for a request; the server knows the size since the start.
        smaller(item);
        item.most = item.part;
        found.again = true;
      }
      throw found;
    }
  }

  // Notes whether the answer to the end of a file was lost on its way.
  function note(item, answer) {
    item.lost = item.lost || [0, 502, 504].includes(answer.status);
  }

  function smaller(item) {
    item.part = Math.max(item.part / 2, LEAST_PART);
  }

  // If the server has no resumable uploads: everything in one request.
  async function pushWhole(item) {
    item.sent = 0;
    await read(item.file.slice(0, 1));
    item.ended = true;
    const headers = await promise(item);
    const answer = await ask(item, "PUT", urlOf(item), headers, item.file, HOOKS, (loaded) =>
      moved(item, loaded)
    );
    note(item, answer);
    if (answer.status !== 200) throw trouble(answer);
    store(item, answer);
  }

  // A file's way: ready, queued, sending (and waiting, before another try), then done or
  // failed. The user may pause it.

  async function work(item) {
    item.turn = new AbortController();
    item.rates = [];
    const { signal } = item.turn;
    let failures = 0;
    try {
      enter(item, "sending");
      while (!item.receipt) {
        try {
          if (item.whole) await pushWhole(item);
          else if (!item.upload) await create(item);
          else if (item.offset === null) await look(item);
          else await append(item);
          if (item.offset > item.best) {
            item.best = item.offset;
            failures = 0;
          }
        } catch (found) {
          if (!(found instanceof Trouble)) throw found;
          failures += 1;
          if (!found.again || (found.limited && failures >= MOST_TRIES)) throw found;
          await rest(item, found, failures);
        }
      }
      enter(item, "done");
    } catch (found) {
      if (found instanceof Stopped || signal.aborted) return;
      if (found instanceof Trouble) {
        fail(item, found);
      } else {
        fail(item, new Trouble("This page has an error. Reload it, and try again."));
        throw found;
      }
    } finally {
      item.turn = null;
      next();
    }
  }

  // Waits before another try: at most until the browser is online again.
  async function rest(item, found, failures) {
    const pause = Math.min(FIRST_PAUSE * 2 ** (failures - 1), MOST_PAUSE);
    const least = Math.max(pause / 2, (found.after || 0) * 1000);
    item.until = performance.now() + least + (Math.random() * pause) / 2;
    item.reason = found.message;
    item.rates = [];
    enter(item, "waiting");
    const { signal } = item.turn;
    await new Promise((resolve, reject) => {
      const tick = setInterval(() => {
        if (performance.now() >= item.until) end(resolve);
        else show(item);
      }, 250);
      const hurry = () => {
        if (!found.after) item.until = 0;
      };
      const stop = () => end(() => reject(new Stopped()));
      const end = (then) => {
        clearInterval(tick);
        window.removeEventListener("online", hurry);
        signal.removeEventListener("abort", stop);
        then();
      };
      window.addEventListener("online", hurry);
      signal.addEventListener("abort", stop);
    });
    enter(item, "sending");
  }

  function fail(item, found) {
    item.reason = found.message;
    item.about = found.about;
    const { length } = item.token;
    if (found.about === "token") {
      // One 403 is enough: a server may ban clients that cause many.
      for (const each of [item, ...items]) {
        if (each === item || each.state === "queued") enter(each, "ready");
      }
      const odd = length === 32 ? "" : ` It has ${count(length, "character")}; most have 32.`;
      refuseToken(
        `${found.message} It may be mistyped, expired, or not valid on your network.${odd}`
      );
      return;
    }
    if (found.about === "name" && item.lost) {
      item.reason = `${found.message} It may be this file: the receipt was lost.`;
    }
    if (item.about === "name") item.parts.input.value = dated(item.name);
    enter(item, "failed");
  }

  // A name that is probably free.
  function dated(name) {
    const dot = name.indexOf(".", 1);
    const end = dot < 0 ? name.length : dot;
    const stamp = new Date().toISOString().slice(0, 19).replace(/:/g, "");
    return `${name.slice(0, end)}-${stamp}${name.slice(end)}`;
  }

  // Sends the next file, unless one is being sent.
  function next() {
    const busy = items.some((each) => each.turn);
    const item = items.find((each) => each.state === "queued");
    if (!busy && item) {
      work(item);
    } else if (!busy) {
      stayAwake(false);
      showAll();
    }
  }

  function enter(item, state) {
    const before = item.state;
    item.state = state;
    if (state === before) return;
    const { name } = item;
    if (state === "sending" && before === "queued") {
      stayAwake(true);
      announce(`Sending ${name}`);
    } else if (state === "waiting") {
      announce(`${name}: ${item.reason} Trying again.`);
    } else if (state === "paused") {
      announce(`${name} is paused`);
    } else if (state === "done") {
      announce(`${name} is stored`);
    } else if (state === "failed") {
      announce(`${name} is not stored. ${item.reason}`);
    }
    show(item);
  }

  // Bytes are on their way.
  function moved(item, sent) {
    const now = performance.now();
    if (sent < item.sent) item.rates = [];
    item.sent = sent;
    item.rates.push([now, sent]);
    while (now - item.rates[0][0] > 10000) item.rates.shift();
    if (now - item.shown > 200) show(item);
    if (now - item.announced > ANNOUNCE) {
      item.announced = now;
      announce(`${item.name}: ${percent(item)} percent. ${left(item)}`);
    }
  }

  function percent(item) {
    return item.file.size ? Math.floor((100 * item.sent) / item.file.size) : 0;
  }

  // Bytes per second, of the last seconds; 0 if unknown.
  function rate(item) {
    if (!item.rates.length) return 0;
    const [began, first] = item.rates[0];
    const [now, last] = item.rates[item.rates.length - 1];
    return now - began < 500 ? 0 : (1000 * (last - first)) / (now - began);
  }

  function left(item) {
    const speed = rate(item);
    return speed > 0 ? `${timeText((item.file.size - item.sent) / speed)} left` : "";
  }

  // What the user sees.

  function stateText(item) {
    const { size } = item.file;
    const soFar = `${sizeText(item.sent)} of ${sizeText(size)}`;
    switch (item.state) {
      case "ready":
        return item.sent ? `Not complete: ${soFar}` : "Not sent yet";
      case "queued":
        return "Waiting for the files before it";
      case "sending": {
        if (item.sent >= size && item.ended) return "Waiting for the receipt";
        const speed = rate(item);
        return [soFar, speed > 0 ? `${sizeText(Math.round(speed))}/s` : "", left(item)]
          .filter(Boolean)
          .join(" · ");
      }
      case "waiting": {
        const seconds = Math.max(0, Math.ceil((item.until - performance.now()) / 1000));
        return `${item.reason} Next try in ${count(seconds, "second")}.`;
      }
      case "paused":
        return `Paused at ${soFar}`;
      case "done":
        return "Stored";
      default:
        return `Not stored. ${item.reason}`;
    }
  }

  function show(item) {
    const { state, parts } = item;
    const { size } = item.file;
    item.shown = performance.now();
    item.card.className = `file ${state}`;
    parts.bar.hidden = isOver(item) && (state === "done" || state === "failed" || !item.sent);
    parts.bar.value = size ? item.sent / size : 0;
    parts.state.textContent = stateText(item);
    parts.rename.hidden = state !== "failed" || item.about !== "name";
    parts.receipt.hidden = state !== "done";
    parts.said.parentNode.hidden = !item.said;
    // In one request nothing can be resumed.
    parts.pause.hidden = !["sending", "waiting"].includes(state) || item.whole;
    parts.resume.hidden = !["paused", "failed", "waiting"].includes(state);
    parts.copy.hidden = state !== "done";
    parts.resume.firstChild.data = { paused: "Resume", waiting: "Try now" }[state] || "Try again";
    parts.cancel.firstChild.data = isOver(item) ? "Remove from list" : "Cancel";
    if (state === "done" && parts.code.textContent !== item.receipt) {
      parts.code.textContent = item.receipt;
      parts.said.textContent = item.said;
    }
    showAll();
  }

  function isOver(item) {
    return ["ready", "queued", "done", "failed"].includes(item.state);
  }

  function showAll() {
    const ready = items.filter((each) => each.state === "ready").length;
    const done = items.filter((each) => each.state === "done").length;
    byId("send").textContent = ready ? `Send ${count(ready, "file")}` : "Send";
    byId("copy-all").hidden = done < 2;
    const busy = items.find((each) => each.turn);
    document.title = busy ? `${percent(busy)} % ${busy.name} - ${TITLE}` : TITLE;
  }

  function refuseToken(text) {
    byId("wrong").textContent = text;
    token.setAttribute("aria-invalid", String(text !== ""));
    if (text) token.focus();
  }

  // The user's actions.

  function add(files) {
    const same = (file) => (each) =>
      each.state !== "done" &&
      each.file.name === file.name &&
      each.file.size === file.size &&
      each.file.lastModified === file.lastModified;
    let added = 0;
    for (const file of files) {
      if (!items.some(same(file))) {
        addOne(file);
        added += 1;
      }
    }
    byId("odd").textContent = "";
    if (added) announce(`${count(added, "file")} added`);
  }

  function addOne(file) {
    const card = byId("file").content.firstElementChild.cloneNode(true);
    const find = (selector) => card.querySelector(selector);
    const parts = {
      bar: find("progress"),
      state: find(".state"),
      rename: find(".rename"),
      input: find(".rename input"),
      receipt: find(".receipt"),
      code: find("code"),
      said: find(".said bdi"),
      pause: find(".pause"),
      resume: find(".resume"),
      copy: find(".copy"),
      cancel: find(".cancel"),
    };
    const item = {
      file,
      card,
      parts,
      name: file.name,
      state: "ready",
      token: "",
      turn: null, // aborts the work on it
      upload: null, // URL of the upload
      offset: null, // bytes that the server has; null: ask it
      best: 0, // the largest offset so far
      part: FIRST_PART, // bytes of the next part
      most: MOST_PART,
      ended: false, // whether the last byte was sent
      lost: false, // whether its answer was lost
      whole: false, // whether the server has no resumable uploads
      receipt: "",
      said: "", // output of the server's post-push hook
      sent: 0,
      rates: [],
      shown: 0,
      announced: performance.now(),
      until: 0,
      reason: "",
      about: "",
    };
    find(".file-name").textContent = file.name;
    find(".size").textContent = sizeText(file.size);
    parts.bar.setAttribute("aria-label", `Progress of ${file.name}`);
    for (const name of ["pause", "resume", "copy", "cancel"]) {
      const about = document.createElement("span");
      about.className = "unseen";
      about.textContent = ` ${file.name}`;
      parts[name].append(about);
    }
    parts.pause.onclick = () => keepFocus(item, () => pause(item));
    parts.resume.onclick = () => keepFocus(item, () => resume(item));
    parts.cancel.onclick = () => cancel(item);
    parts.copy.onclick = () => copy([item], parts.copy);
    parts.input.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      keepFocus(item, () => resume(item));
    };
    items.push(item);
    byId("files").append(card);
    show(item);
  }

  // A button that the user has just pressed may disappear.
  function keepFocus(item, action) {
    const before = document.activeElement;
    action();
    const button = firstButton(item);
    if (before && before.offsetParent === null && button) button.focus();
  }

  function firstButton(item) {
    return [...item.card.querySelectorAll("button")].find((each) => each.offsetParent !== null);
  }

  function pause(item) {
    const { turn } = item;
    enter(item, "paused");
    item.offset = null;
    if (turn) turn.abort();
  }

  function resume(item) {
    if (item.state === "waiting") {
      item.until = 0;
      return;
    }
    if (item.about === "name") {
      const name = item.parts.input.value;
      if (!name || name === item.name) {
        item.parts.input.focus();
        return;
      }
      item.name = name;
      item.upload = item.offset = null;
      item.ended = item.lost = false;
      item.card.querySelector(".file-name").textContent = name;
    }
    item.about = item.reason = "";
    if (token.value) item.token = clean(token.value);
    enter(item, "queued");
    next();
  }

  function cancel(item) {
    const { upload, turn } = item;
    const word = isOver(item) ? "removed" : "canceled";
    const place = items.indexOf(item);
    items.splice(place, 1);
    item.card.remove();
    if (turn) turn.abort();
    if (upload && !item.receipt) giveUp(item);
    announce(`${item.name} is ${word}`);
    const other = items[place] || items[place - 1];
    ((other && firstButton(other)) || chooser).focus();
    showAll();
  }

  // Deletes the upload. If that fails, the server does it later, on its own.
  async function giveUp(item) {
    // Without the turn of the item, which has ended and must not begin again.
    const answer = await ask({ token: item.token }, "DELETE", item.upload, {}, null, SILENCE);
    if (answer.header("Upload-Complete") === "?1") {
      byId("odd").textContent = `${item.name} was stored before you canceled it.`;
    }
  }

  async function copy(which, button) {
    const text = which.map((each) => `${each.receipt}\n`).join("");
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) {
      // There is no clipboard on plain http.
      copied = copyOldWay(text);
    }
    const label = button.firstChild;
    const before = "Copy";
    label.data = label.data.replace(before, copied ? "Copied" : "Cannot copy");
    announce(copied ? "Copied" : "Cannot copy: select the receipt instead");
    setTimeout(() => {
      label.data = label.data.replace(/Copied|Cannot copy/, before);
    }, 2000);
  }

  function copyOldWay(text) {
    const focused = document.activeElement;
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (focused) focused.focus();
    return copied;
  }

  // The token in what was pasted, which may be a URL or a header with it.
  function clean(text) {
    const words = text.split(/[^A-Za-z0-9_-]+/).filter((word) => word.length === 32);
    return words.length === 1 ? words[0] : text.trim();
  }

  function send() {
    const given = clean(token.value);
    const ready = items.filter((each) => each.state === "ready");
    if (!/^[\x21-\x7e]+$/.test(given)) {
      refuseToken(given ? "A token has no spaces, and only ASCII." : "Paste the token first.");
      return;
    }
    refuseToken("");
    if (!ready.length) {
      byId("odd").textContent = "Choose files first.";
      chooser.focus();
      return;
    }
    for (const each of ready) {
      each.token = given;
      enter(each, "queued");
    }
    next();
  }

  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });

  byId("show").addEventListener("click", () => {
    const hidden = token.type === "password";
    token.type = hidden ? "text" : "password";
    byId("show").setAttribute("aria-pressed", String(hidden));
    byId("show").firstChild.data = hidden ? "Hide" : "Show";
  });

  token.addEventListener("input", () => refuseToken(""));

  byId("copy-all").addEventListener("click", () => {
    copy(items.filter((each) => each.state === "done"), byId("copy-all"));
  });

  chooser.addEventListener("change", () => {
    add(chooser.files);
    chooser.value = ""; // so that the same file can be chosen again
  });

  // Files may be dropped anywhere: elsewhere the browser would open them, and leave.
  const hasFiles = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");

  window.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    document.body.classList.add("over");
  });

  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });

  window.addEventListener("drop", (event) => {
    document.body.classList.remove("over");
    if (!hasFiles(event)) return;
    event.preventDefault();
    const files = [];
    let folders = 0;
    for (const each of event.dataTransfer.items) {
      if (each.kind !== "file") continue;
      const entry = each.webkitGetAsEntry ? each.webkitGetAsEntry() : null;
      if (entry && entry.isDirectory) folders += 1;
      else files.push(each.getAsFile());
    }
    add(files);
    if (folders) {
      byId("odd").textContent = "Folders cannot be sent. Pack them into a zip file first.";
    }
  });

  window.addEventListener("beforeunload", (event) => {
    const going = ["queued", "sending", "waiting", "paused"];
    if (!items.some((each) => going.includes(each.state))) return;
    event.preventDefault();
    event.returnValue = true; // for older browsers
  });

  // A phone that locks its screen stops the page.
  let lock = null;
  let awake = false;

  async function stayAwake(wanted) {
    awake = wanted;
    if (!wanted && lock) {
      lock.release();
      lock = null;
    } else if (wanted && !lock && navigator.wakeLock) {
      try {
        lock = await navigator.wakeLock.request("screen");
        lock.onrelease = () => {
          lock = null;
        };
      } catch (error) {
        // The battery is low, or the page is hidden.
      }
    }
  }

  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") stayAwake(awake);
  });

  byId("insecure").hidden = window.isSecureContext;
})();
