"""The drop page in a real browser: Chromium, if it and its driver are installed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from filebucket.test.admin.test_html import HOSTILE
from filebucket.test.kit.browser import FOREIGN, shared_browser
from filebucket.test.kit.cutter import Cutter
from filebucket.test.kit.integration import MIB, IntegrationCase
from filebucket.test.kit.server import OTHER, TOKEN, UNKNOWN, comes
from filebucket.test.whole.test_browser import TOO_WIDE

ENTER = "\ue007"
TAB = "\ue004"

SLOW = 2 * MIB
"""Bytes per second of a line that is throttled: a file of some MiB takes seconds."""

STATES = """
    return Object.fromEntries([...document.querySelectorAll(".file")].map((card) => [
      card.querySelector(".file-name").textContent, card.className.split(" ")[1]
    ]));
"""


def receipt(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}"


class DropCase(IntegrationCase):
    """Has a daemon with the page, and a browser that shows it."""

    config: ClassVar[Mapping[str, Any]] = {}

    def setUp(self) -> None:
        super().setUp()
        self.browser = shared_browser()
        self.addCleanup(self.browser.clear)
        self.daemon = self.server(page=True, **self.config)
        # A restart keeps the port.
        self.daemon.config["port"] = self.daemon.port
        self.daemon.write_config()

    def open(self, url: str = "", width: int = 768, dark: bool = False) -> None:
        """Open the page."""
        self.browser.show(width, dark)
        self.browser.open(f"{url or self.daemon.url}/")
        self.assertEqual([], self.browser.complaints())

    def choose(self, **files: bytes) -> None:
        """Choose files, by name with "_" for "."."""
        paths = [
            str(self.file(name.replace("_", "."), content))
            for name, content in files.items()
        ]
        self.browser.type("#chooser", "\n".join(paths))

    def drop(self, files: Mapping[str, str]) -> None:
        """Drop files on the heading, by name."""
        self.browser.run(
            "const data = new DataTransfer();"
            "for (const [name, content] of arguments[0])"
            " data.items.add(new File([content], name));"
            "document.querySelector('h1').dispatchEvent(new DragEvent('drop',"
            " {dataTransfer: data, bubbles: true, cancelable: true}));",
            list(files.items()),
        )

    def send(self, token: str = OTHER) -> None:
        """Paste the token, and send the files."""
        self.browser.type("#token", token)
        self.click("#send")

    def click(self, selector: str, name: str = "") -> None:
        """Click a button, of the card of a file if that is named."""
        self.browser.click(selector if not name else self.card(name) + selector)

    def card(self, name: str) -> str:
        """Selects the card of a file."""
        names: list[str] = list(self.browser.run(STATES))
        return f".file:nth-child({names.index(name) + 1}) "

    def wait_for(self, **states: str) -> None:
        """Wait until the files have these states."""
        wanted = {name.replace("_", "."): state for name, state in states.items()}
        self.browser.wait(
            f"((states) => Object.entries({wanted}).every("
            "([name, state]) => states[name] === state))"
            f"((() => {{ {STATES} }})())"
        )

    def wait_for_text(self, pattern: str) -> None:
        """Wait until the state of the first file reads like that; between two tries it
        is another one.
        """
        text = "document.querySelector('.state').textContent"
        self.browser.wait(f"/{pattern}/.test({text})")

    def wait_for_share(self, share: float) -> None:
        """Wait until the browser has sent this share of the first file."""
        self.browser.wait(f"document.querySelector('progress').value >= {share}")

    def texts(self, selector: str) -> list[str]:
        """The texts of the visible elements that the selector finds."""
        return self.browser.texts(selector)

    def throttle(self, rate: int = -1, offline: bool = False) -> None:
        """Limit the line of the browser, or cut it.

        :param rate: bytes per second; -1 is unlimited
        """
        self.browser.devtools(
            "Network.emulateNetworkConditions",
            offline=offline,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=rate,
        )

    def requests_of(self, event: str) -> list[str]:
        """The log lines about that."""
        lines = self.daemon.log.splitlines()
        return [each for each in lines if f"[filebucket.tap#info] {event} " in each]

    def check_policy(self) -> None:
        """The console has nothing but requests that failed as they should."""
        for complaint in self.browser.complaints():
            self.assertIn("Failed to load resource", complaint)


class PushTests(DropCase):
    """Files arrive whole."""

    def test_files(self) -> None:
        """Several files, in turn, each with a receipt."""
        files = {"large_bin": os.urandom(9 * MIB), "small_txt": b"hello", "empty": b""}
        self.open()
        self.choose(**files)
        self.assertEqual(["Send 3 files"], self.texts("#send"))
        self.assertEqual(["Not sent yet"] * 3, self.texts(".state"))
        self.send()
        self.wait_for(large_bin="done", small_txt="done", empty="done")
        expected = {name.replace("_", "."): data for name, data in files.items()}
        self.assertEqual(
            {f"web01/{name}": data for name, data in expected.items()},
            self.daemon.stored(),
        )
        self.assertEqual(
            [receipt(name, data) for name, data in expected.items()],
            self.texts("code"),
        )
        self.assertEqual([], self.browser.complaints())
        title = self.browser.run("return document.title")
        self.assertEqual("Send files - file-bucket", title)

    def test_digests(self) -> None:
        """On localhost each part has a digest, and a small file one of the whole."""
        self.browser.fetched()
        self.open()
        self.choose(a=b"content", b=bytes(5 * MIB))
        self.send()
        self.wait_for(a="done", b="done")
        sent = self.browser.sent()
        parts = [headers for method, headers in sent if method == "PATCH"]
        self.assertEqual(3, len(parts))
        for headers in parts:
            self.assertRegex(
                headers["Content-Digest"], "^sha-256=:[A-Za-z0-9+/]{43}=:$"
            )
            self.assertEqual(f"Bearer {OTHER}", headers["Authorization"])
        creations = [headers for method, headers in sent if method == "PUT"]
        self.assertEqual(
            [hashlib.sha256(b"content").hexdigest(), None],
            [each.get("X-Checksum-Sha256") for each in creations],
        )

    def test_without_encryption(self) -> None:
        """Over plain http the page warns, and works without digests."""
        content = os.urandom(5 * MIB)
        self.open(f"http://{FOREIGN}:{self.daemon.port}")
        self.assertEqual(1, len(self.texts("#insecure")))
        self.choose(a=content)
        self.send()
        self.wait_for(a="done")
        self.assertEqual({"web01/a": content}, self.daemon.stored())
        self.click(".copy", "a")
        self.browser.wait("document.querySelector('.copy').textContent[3] === 'i'")
        self.assertEqual([], self.browser.complaints())

    def test_copy(self) -> None:
        """The receipt of a file, and of all, with the output of a hook beside it."""
        self.daemon.hook("post-push", "echo '<b>thanks</b>'")
        self.daemon.stop()
        self.daemon.start()
        self.open()
        self.browser.devtools(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        self.choose(a=b"one", b=b"two")
        self.send()
        self.wait_for(a="done", b="done")
        self.assertEqual(["<b>thanks</b>"] * 2, self.texts(".said bdi"))
        first, second = receipt("a", b"one") + "\n", receipt("b", b"two") + "\n"
        for selector, expected in (
            (self.card("b") + ".copy", second),
            ("#copy-all", first + second),
        ):
            self.browser.click(selector)
            copied = f"document.querySelector({selector!r}).textContent"
            self.browser.wait(f"{copied}.startsWith('Copied')")
            self.browser.run(
                "window.read = null;"
                "navigator.clipboard.readText().then((text) => (window.read = text))"
            )
            self.assertEqual(expected, self.browser.wait("window.read"))

    def test_dropped(self) -> None:
        """Files that are dropped anywhere."""
        self.open()
        self.drop({"a": "x", "b": "y"})
        self.assertEqual({"a": "ready", "b": "ready"}, self.browser.run(STATES))
        self.send()
        self.wait_for(a="done", b="done")
        self.assertEqual({"web01/a": b"x", "web01/b": b"y"}, self.daemon.stored())


class LineTests(DropCase):
    """The line drops, or the daemon restarts."""

    def test_cut(self) -> None:
        """The page continues by itself from what the server has."""
        content = os.urandom(20 * MIB)
        cutter = Cutter(self.daemon.port, [])
        self.addCleanup(cutter.close)
        self.open(f"http://127.0.0.1:{cutter.port}")
        cutter.arm([6 * MIB, 1 * MIB, 300, 5 * MIB])
        self.choose(a=content)
        self.send()
        self.wait_for(a="done")
        self.assertEqual(4, cutter.cuts)
        self.assertEqual({"web01/a": content}, self.daemon.stored())
        self.assertEqual([receipt("a", content)], self.texts("code"))
        # Only the parts that were cut were sent again.
        self.assertLess(cutter.passed, 20 * MIB + 14 * MIB)
        self.check_policy()

    def test_last_answer_lost(self) -> None:
        """The receipt arrives all the same, and the file is stored once."""
        content = os.urandom(5 * MIB)
        cutter = Cutter(self.daemon.port, [])
        self.addCleanup(cutter.close)
        self.open(f"http://127.0.0.1:{cutter.port}")
        self.daemon.hook("post-push", "sleep 1; echo hook")
        self.daemon.stop()
        self.daemon.start()
        self.choose(a=content)
        self.send()
        self.daemon.wait_for("part bucket=web01")
        self.assertTrue(comes(lambda: "web01/a" in self.daemon.stored()))
        cutter.cut_all()
        self.wait_for(a="done")
        self.assertEqual([receipt("a", content)], self.texts("code"))
        self.assertEqual({"web01/a": content}, self.daemon.stored())

    def test_offline(self) -> None:
        """The page tries again as soon as the browser is online."""
        content = os.urandom(6 * MIB)
        self.open()
        self.choose(a=content)
        self.throttle(SLOW)
        self.send()
        self.wait_for_share(0.1)
        self.throttle(offline=True)
        self.wait_for_text(
            r"^The connection to the server failed\. Next try in \d+ seconds?\.$"
        )
        # After some tries, it would be a long time until the next one.
        self.wait_for_text(r"Next try in ([4-9]|\d\d) sec")
        self.throttle()
        self.wait_for(a="done")
        self.assertEqual({"web01/a": content}, self.daemon.stored())
        self.check_policy()

    def test_restart(self) -> None:
        """The daemon restarts in the middle of a file."""
        content = os.urandom(12 * MIB)
        self.open()
        self.choose(a=content)
        self.throttle(2 * SLOW)
        self.send()
        self.daemon.wait_for("part bucket=web01")
        self.daemon.stop()
        self.wait_for(a="waiting")
        self.throttle()
        self.daemon.start()
        # The next try comes within seconds, perhaps before a click on "Resume".
        self.wait_for(a="done")
        self.assertEqual({"web01/a": content}, self.daemon.stored())
        self.check_policy()

    def test_another_answers(self) -> None:
        """Whatever else answers with 200, nothing is reported as stored."""
        self.open()
        self.choose(a=b"content")
        self.browser.run(
            "const open = XMLHttpRequest.prototype.open;"
            "XMLHttpRequest.prototype.open = function () {"
            " open.call(this, 'GET', 'drop.css'); };"
        )
        self.send()
        self.wait_for_text(r"^The answer is not from file-bucket\. ")
        self.assertEqual({}, self.daemon.stored())


class ControlTests(DropCase):
    """Pause, resume and cancel."""

    def test_pause(self) -> None:
        """Meanwhile the next file is sent."""
        content = os.urandom(12 * MIB)
        self.open()
        self.choose(a=content, b=b"next")
        self.throttle(2 * SLOW)
        self.send()
        self.daemon.wait_for("part bucket=web01")
        self.assertTrue(self.asks_before_leaving())
        self.click(".pause", "a")
        self.wait_for(a="paused", b="done")
        self.assertTrue(self.asks_before_leaving())
        self.assertRegex(
            self.texts(".state")[0], r"^Paused at \d+\.\d MiB of 12\.0 MiB$"
        )
        self.assertEqual({"web01/b": b"next"}, self.daemon.stored())
        self.throttle()
        self.click(".resume", "a")
        self.wait_for(a="done")
        self.assertFalse(self.asks_before_leaving())
        self.assertEqual(content, self.daemon.stored()["web01/a"])
        self.assertEqual(1, len(self.requests_of("upload")) - 1)
        self.assertEqual([], self.browser.complaints())

    def asks_before_leaving(self) -> bool:
        found: bool = self.browser.run(
            "const event = new Event('beforeunload', {cancelable: true});"
            "window.dispatchEvent(event); return event.defaultPrevented"
        )
        return found

    def test_cancel(self) -> None:
        """Nothing of the file stays on the server."""
        self.open()
        self.choose(a=os.urandom(12 * MIB), b=b"next")
        self.throttle(2 * SLOW)
        self.send()
        self.daemon.wait_for("part bucket=web01")
        self.click(".cancel", "a")
        self.wait_for(b="done")
        self.daemon.wait_for("upload-deleted bucket=web01 name='a'")
        self.assertEqual({"b": "done"}, self.browser.run(STATES))
        self.assertEqual({"web01/b"}, set(self.daemon.stored()))
        self.assertEqual([], self.browser.complaints())

    def test_cancel_between_requests(self) -> None:
        """No request about the file follows the one that deletes it."""
        self.open()
        self.browser.run(
            "const read = Blob.prototype.arrayBuffer;"
            "Blob.prototype.arrayBuffer = async function () {"
            " window.reads = (window.reads || 0) + 1;"
            " if (window.reads === 2) await new Promise((go) => (window.go = go));"
            " return read.call(this); };"
        )
        self.choose(a=bytes(9 * MIB), b=b"next")
        self.send()
        self.browser.wait("!!window.go")
        self.click(".cancel", "a")
        self.daemon.wait_for("upload-deleted bucket=web01 name='a'")
        self.browser.run("window.go()")
        self.wait_for(b="done")
        self.assertEqual({"web01/b"}, set(self.daemon.stored()))
        self.assertEqual([], self.browser.complaints())


class RefusedTests(DropCase):
    """The server refuses a file, in words."""

    def test_token(self) -> None:
        """An unknown token costs one 403, however many files wait."""
        self.open()
        self.choose(a=b"one", b=b"two", c=b"three")
        self.send(UNKNOWN)
        self.browser.wait("document.getElementById('wrong').textContent")
        self.wait_for(a="ready", b="ready", c="ready")
        (text,) = self.texts("#wrong")
        self.assertTrue(text.startswith("The server does not accept this token."), text)
        focused = "return document.activeElement.id"
        self.assertEqual("token", self.browser.run(focused))
        self.browser.run("document.getElementById('token').value = ''")
        # The Enter key sends, too.
        self.browser.type("#token", f"Authorization: Bearer {OTHER}\n")
        self.wait_for(a="done", b="done", c="done")
        self.assertEqual([], self.texts("#wrong"))
        self.assertEqual(1, len(self.requests_of("refused")))
        self.check_policy()

    def test_name_taken(self) -> None:
        """The user chooses another name."""
        self.open()
        self.choose(a_tar_gz=b"one")
        self.send()
        self.wait_for(a_tar_gz="done")
        self.click(".cancel", "a.tar.gz")
        self.choose(a_tar_gz=b"two")
        self.click("#send")
        self.wait_for(a_tar_gz="failed")
        self.assertEqual(
            [
                "Not stored. A file with this name exists already, and cannot be"
                " replaced."
            ],
            self.texts(".state"),
        )
        self.click(".resume", "a.tar.gz")
        self.browser.wait("document.querySelector('.done')")
        (name,) = self.browser.run(STATES)
        self.assertRegex(name, r"^a-\d{4}-\d\d-\d\dT\d{6}\.tar\.gz$")
        self.assertEqual(
            {"web01/a.tar.gz": b"one", f"web01/{name}": b"two"}, self.daemon.stored()
        )
        self.check_policy()

    def test_retired(self) -> None:
        """Another token, or another network, would not help."""
        for bucket in self.daemon.config["buckets"]:
            if isinstance(bucket, dict) and bucket.get("name") == "web01":
                bucket["retired"] = True
        self.daemon.write_config()
        self.daemon.stop()
        self.daemon.start()
        self.open()
        self.choose(a=b"one")
        self.send()
        self.wait_for(a="failed")
        self.assertEqual(
            ["Not stored. This bucket is retired: it accepts no more files."],
            self.texts(".state"),
        )
        self.assertEqual([], self.texts("#wrong"))

    def test_hook(self) -> None:
        """A hook rejects a file; the next one is sent."""
        self.daemon.hook("pre-push", '[ "$2" != a ]')
        self.daemon.stop()
        self.daemon.start()
        self.open()
        self.choose(a=b"one", b=b"two")
        self.send()
        self.wait_for(a="failed", b="done")
        self.assertEqual(
            "Not stored. The server refuses this file: rejected by the server's"
            " pre-push hook",
            self.texts(".state")[0],
        )

    def test_unreadable(self) -> None:
        """A file that was deleted after it was chosen."""
        self.open()
        self.choose(a=b"one")
        (self.folder / "a").unlink()
        self.send()
        self.wait_for(a="failed")
        (text,) = self.texts(".state")
        self.assertTrue(text.startswith("Not stored. The file cannot be read."), text)


class LimitTests(DropCase):
    """The operator limits the size of a file, and has no resumable uploads."""

    config: ClassVar[Mapping[str, Any]] = {"max_file_size": 2 * MIB, "unfinished": 0}

    def test_whole(self) -> None:
        """Each file is sent in one request."""
        content = os.urandom(2 * MIB)
        self.open()
        self.choose(a=content, b=content + b"x")
        self.send()
        self.wait_for(a="done", b="failed")
        self.assertEqual({"web01/a": content}, self.daemon.stored())
        self.assertEqual(
            "Not stored. The file is too large for the server: the file is larger"
            f" than {2 * MIB} bytes",
            self.texts(".state")[1],
        )
        self.assertEqual([receipt("a", content)], self.texts("code"))
        self.check_policy()

    def test_name_taken(self) -> None:
        """A receipt that never was is not called lost."""
        self.open()
        self.choose(a=b"one")
        self.send()
        self.wait_for(a="done")
        self.click(".cancel", "a")
        self.choose(a=b"two")
        self.click("#send")
        self.wait_for(a="failed")
        text = (
            "Not stored. A file with this name exists already, and cannot be replaced."
        )
        self.assertEqual([text], self.texts(".state"))

    def lose_answer(self, url: str) -> str:
        """Push a file whose answer is lost once; returns its state at the end."""
        cutter = Cutter(self.daemon.port, [])
        self.addCleanup(cutter.close)
        self.daemon.hook("post-push", "sleep 1")
        self.daemon.stop()
        self.daemon.start()
        self.open(f"{url}:{cutter.port}")
        self.choose(a=b"content")
        self.send()
        self.assertTrue(comes(lambda: "web01/a" in self.daemon.stored()))
        cutter.cut_all()
        self.browser.wait("document.querySelector('.done, .failed')")
        (text,) = self.texts(".state")
        self.assertEqual({"web01/a": b"content"}, self.daemon.stored())
        return text

    def test_lost_answer(self) -> None:
        """With the digest, the second try gets the receipt."""
        self.assertEqual("Stored", self.lose_answer("http://127.0.0.1"))
        self.assertEqual([receipt("a", b"content")], self.texts("code"))

    def test_lost_answer_without_digest(self) -> None:
        """The page says that the file may be there."""
        text = self.lose_answer(f"http://{FOREIGN}")
        self.assertTrue(text.startswith("Not stored. A file with this name exists"))
        self.assertTrue(text.endswith("It may be this file: the receipt was lost."))


class TokenTests(DropCase):
    """The token stays a secret of the page."""

    def test_not_stored(self) -> None:
        """It is in no URL, and in no storage of the browser."""
        self.browser.fetched()
        self.open()
        self.choose(a=b"content")
        self.send()
        self.wait_for(a="done")
        self.assertEqual(
            [0, 0, "", f"{self.daemon.url}/"],
            self.browser.run(
                "return [localStorage.length, sessionStorage.length, document.cookie,"
                " location.href]"
            ),
        )
        fetched = self.browser.fetched()
        self.assertIn(f"{self.daemon.url}/a", fetched)
        for url in fetched:
            self.assertTrue(url.startswith(f"{self.daemon.url}/"), url)
            self.assertNotIn(OTHER, url)
        # A reload forgets it.
        self.browser.open(f"{self.daemon.url}/")
        self.assertEqual("", self.browser.run("return document.all.token.value"))

    def test_show(self) -> None:
        self.open()
        self.browser.type("#token", TOKEN)
        kind = "return document.all.token.type"
        self.assertEqual("password", self.browser.run(kind))
        self.click("#show")
        self.assertEqual("text", self.browser.run(kind))
        self.assertEqual(["Hide the token"], self.texts("#show"))
        self.click("#show")
        self.assertEqual("password", self.browser.run(kind))

    def test_missing(self) -> None:
        """Without a token nothing is sent, and without files neither."""
        self.open()
        self.click("#send")
        self.assertEqual(["Paste the token first."], self.texts("#wrong"))
        self.browser.type("#token", TOKEN)
        self.assertEqual([], self.texts("#wrong"))
        self.click("#send")
        self.assertEqual(["Choose files first."], self.texts("#odd"))
        self.assertEqual([], self.requests_of("refused"))


class ShowingTests(DropCase):
    """The page as it is shown, and used without a mouse."""

    def test_widths(self) -> None:
        """Nothing is wider than the window, and all that is touched is large."""
        small = """
            return [...document.querySelectorAll("button, input, #zone")]
              .filter((each) => each.checkVisibility() && !each.matches(".unseen"))
              .filter((each) => each.getBoundingClientRect().height < 44)
              .map((each) => each.textContent)
        """
        for width in (320, 360, 768, 1280):
            self.open(width=width, dark=width == 360)
            names = [f"{'long' * 50}{width}", f"done{width}"]
            self.choose(**dict.fromkeys(names, b"one"))
            self.send()
            self.wait_for(**dict.fromkeys(names, "done"))
            self.click(".cancel", names[0])
            self.choose(**{names[0]: b"two"})
            self.click("#send")
            self.wait_for(**{names[0]: "failed"})
            self.assertEqual([], self.browser.run(TOO_WIDE)[:3], width)
            self.assertEqual([], self.browser.run(small), width)
            self.check_policy()

    def test_keyboard(self) -> None:
        """All controls are reached in the order of the page; Enter sends."""
        self.open()
        self.choose(a=b"content")
        self.browser.run("document.activeElement.blur()")
        order = []
        for _ in range(5):
            self.browser.press_key(TAB)
            order.append(
                self.browser.run(
                    "const each = document.activeElement;"
                    "return each.id || each.className"
                )
            )
        self.assertEqual(["token", "show", "chooser", "cancel", "send"], order)
        outline = "return getComputedStyle(document.activeElement).outlineStyle"
        self.assertEqual("solid", self.browser.run(outline))
        self.browser.type("#token", OTHER + ENTER)
        self.wait_for(a="done")
        self.assertEqual("a is stored", self.texts("#news")[0])

    def test_names_for_screen_readers(self) -> None:
        """Each control has a name, with that of its file."""
        self.open()
        self.choose(a=b"one", b=b"two")
        self.send()
        self.wait_for(a="done", b="done")
        self.choose(a=b"three", c=b"four")
        named = [
            (each["role"]["value"], each["name"]["value"])
            for each in self.browser.devtools("Accessibility.getFullAXTree")["nodes"]
            if not each["ignored"]
            and each["role"]["value"] in ("button", "textbox", "progressbar", "list")
        ]
        self.assertIn(("textbox", "Token"), named)
        self.assertIn(("button", "Choose files or drop them here"), named)
        self.assertIn(("button", "Copy receipt b"), named)
        self.assertIn(("list", "Files"), named)
        self.assertNotIn("", [name.strip() for _, name in named])

    def test_hostile_names(self) -> None:
        """Names are texts, whatever they contain."""
        names = [each for each in HOSTILE if "/" not in each]
        self.open()
        self.drop(dict.fromkeys(names, "x"))
        self.send()
        self.browser.wait(f"document.querySelectorAll('.done').length === {len(names)}")
        self.assertEqual(names, self.texts(".file-name"))
        self.assertEqual([receipt(name, b"x") for name in names], self.texts("code"))
        self.assertEqual({f"web01/{name}" for name in names}, set(self.daemon.stored()))
        self.assertTrue(self.browser.run("return window.canary === undefined"))
        self.assertEqual([], self.browser.complaints())

    def test_policy_holds(self) -> None:
        """What others would put into the page does not run, and sends nothing away."""
        self.open()
        self.browser.run(
            "document.body.insertAdjacentHTML('beforeend',"
            ' \'<img src=x onerror="window.canary = 1">'
            '<iframe src="http://127.0.0.2/"></iframe>\');'
            "fetch('http://127.0.0.2/').catch(() => (window.refused = true));"
        )
        self.browser.wait("window.refused")
        found = "\n".join(self.browser.complaints())
        self.assertRegex(found, r"Content Security Policy|violates")
        self.assertTrue(self.browser.run("return window.canary === undefined"))

    def test_dark(self) -> None:
        background = "return getComputedStyle(document.documentElement).backgroundColor"
        self.open(dark=False)
        light = self.browser.run(background)
        self.open(dark=True)
        self.assertNotEqual(light, self.browser.run(background))
