"""Real clients push resumable uploads over connections that are cut.

Each runs as ``docs/how-to/resuming.rst`` shows it, with smaller parts and shorter
pauses: to the daemon itself, through nginx, or through HAProxy. At one of the cuts the
daemon is killed and started again. In some runs, curl pushes the same name at a cut.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from attrs import Factory, define
from twisted.trial.unittest import SkipTest

from filebucket.test.kit.browser import Browser
from filebucket.test.kit.certificates import write_pair
from filebucket.test.kit.cutter import Cutter, examples
from filebucket.test.kit.nginx import nginx_command, shipped
from filebucket.test.kit.programs import free_ports
from filebucket.test.kit.server import OTHER, PATIENCE, Server, comes, listens
from proofs.outcome import Outcome
from proofs.pushes import content

SIZE = 3_000_000
"""Bytes of a file."""

MOST_CUTS = 4

RIVAL_EVERY = 3
"""Every how many runs another client pushes the same name."""

ROOT = Path(__file__).parent.parent

_PART = "64 * 1024 * 1024"

_IN_BROWSER = """
const [name, data, token] = arguments
const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0))
const part = 500000
const auth = { Authorization: `Bearer ${token}` }
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function push() {
  let upload = null
  let offset = null
  for (let failed = 0; failed < 20; ) {
    let answer = null
    try {
      if (upload === null) {
        answer = await fetch('/' + name, { method: 'PUT', headers: {
          ...auth, 'Upload-Complete': '?0', 'Upload-Length': bytes.length } })
      } else if (offset === null) {
        answer = await fetch(upload, { method: 'HEAD', headers: auth })
      } else {
        const body = bytes.subarray(offset, offset + part)
        const last = offset + part >= bytes.length ? '?1' : '?0'
        const at = offset
        offset = null
        answer = await fetch(upload, { method: 'PATCH', body, headers: {
          ...auth, 'Upload-Offset': at, 'Upload-Complete': last } })
      }
    } catch (error) { /* the connection was cut */ }
    if (answer?.status === 200) return 'stored'
    if (answer?.status === 201) {
      upload = '/' + answer.headers.get('Location')
    } else if (answer?.status === 204) {
      offset = Number(answer.headers.get('Upload-Offset'))
      failed = 0
    } else if (answer && ![408, 409].includes(answer.status) && answer.status < 500) {
      return `${answer.status} ${await answer.text()}`
    } else {
      failed += 1
      await pause(1000)
    }
  }
  return 'gave up'
}
window.pushed = null
push().then((text) => (window.pushed = text), (error) => (window.pushed = `${error}`))
"""


@define
class Tally:
    """What a client did, in all its runs.

    :ivar ends: how its runs ended
    :ivar sent: bytes in runs that stored the file
    """

    runs: int = 0
    cuts: int = 0
    ends: Counter[str] = Factory(Counter)
    sent: int = 0

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        ratio = self.sent / SIZE / (self.ends["stored"] or 1)
        return f"{self.runs} runs, {self.cuts} cuts, {ends}, {ratio:.2f} x sent"


@define
class Run:
    """What a client is given.

    :ivar path: the file
    :ivar url: the server, with a slash at the end
    :ivar folder: for its scripts; the home folder of curl
    """

    path: Path
    url: str
    folder: Path
    environ: Mapping[str, str]

    def script(self, text: str, name: str, **changes: str) -> str:
        """The path of a script of the document, with replacements."""
        for old, new in {"http://backup:1234/": self.url, **changes}.items():
            assert old in text, old
            text = text.replace(old, new)
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def run(self, *command: str) -> tuple[bool, str]:
        """Whether a command succeeds, and its last line."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=5 * PATIENCE,
            check=False,
        )
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
        return done.returncode == 0, lines[-1] if lines else ""


def _large(run: Run, texts: Mapping[str, str]) -> tuple[bool, str]:
    changes = {f"$(({_PART}))": "500000", "pause=10": "pause=1"}
    script = run.script(_slashless(texts["push-large"]), "push-large", **changes)
    return run.run("sh", script, str(run.path))


def _output(run: Run, texts: Mapping[str, str]) -> tuple[bool, str]:
    changes = {"mib=64": "mib=1", "pause=10": "pause=1"}
    script = run.script(_slashless(texts["push-output"]), "push-output", **changes)
    return run.run("sh", script, run.path.name, "cat", str(run.path))


def _slashless(text: str) -> str:
    return text.replace("url=http://backup:1234\n", "url=http://backup:1234/\n")


def _tus_js(run: Run, texts: Mapping[str, str]) -> tuple[bool, str]:
    return _node(run, texts)


def _node(run: Run, texts: Mapping[str, str], **changes: str) -> tuple[bool, str]:
    changes = {
        _PART: "500000",
        "[0, 1000, 3000, 10000, 30000]": "[0, 100, 100, 100, 1000, 1000]",
        **changes,
    }
    script = run.script(texts["tus-js-client"], "push.js", **changes)
    return run.run("node", script, str(run.path))


def _ietf(draft: str) -> Callable[[Run, Mapping[str, str]], tuple[bool, str]]:
    def push(run: Run, texts: Mapping[str, str]) -> tuple[bool, str]:
        return _node(
            run,
            texts,
            **{
                "fs.createReadStream(path)": "fs.readFileSync(path)",
                f"'{run.url}'": f"'{run.url}{run.path.name}', protocol: '{draft}'",
            },
        )

    return push


def _tuspy(run: Run, texts: Mapping[str, str]) -> tuple[bool, str]:
    changes = {_PART: "500000", "retry_delay=10": "retry_delay=0.1"}
    script = run.script(texts["tusclient"], "push_tuspy.py", **changes)
    return run.run(sys.executable, script, str(run.path))


def _aiotus(run: Run, texts: Mapping[str, str]) -> tuple[bool, str]:
    script = run.script(texts["aiotus"], "push_aiotus.py", **{_PART: "500000"})
    return run.run(sys.executable, script, str(run.path))


CLIENTS: dict[str, Callable[[Run, Mapping[str, str]], tuple[bool, str]]] = {
    "push-large": _large,
    "push-output": _output,
    "tus-js-client": _tus_js,
    "tus-js-client draft-03": _ietf("ietf-draft-03"),
    "tus-js-client draft-05": _ietf("ietf-draft-05"),
    "tuspy": _tuspy,
    "aiotus": _aiotus,
}

CHROMIUM = "Chromium"

WAYS = ("direct", "nginx", "HAProxy")


def resume(folder: Path, trials: int) -> Outcome:
    """Let each client push, each way, over connections that are cut."""
    chance = random.Random("clients")
    texts = examples(ROOT / "docs" / "how-to" / "resuming.rst")
    missing = _install(folder)
    tallies: dict[str, Tally] = {}
    faults: list[str] = []
    names = [name for name in (*CLIENTS, CHROMIUM) if name not in missing]
    with ExitStack() as closing:
        server, ports = _server(folder, closing)
        environ = _environ(folder, server)
        browser = Browser() if CHROMIUM in names else None
        if browser is not None:
            closing.callback(browser.close)
        for number in range(trials):
            client = names[number % len(names)]
            way = WAYS[number // len(names) % len(WAYS)]
            trial = _Trial(folder, server, f"{number}.bin", chance, number)
            with trial.cutting(ports[way]) as cutter:
                scheme = "http" if way == "direct" else "https"
                url = f"{scheme}://127.0.0.1:{cutter.port}/"
                run = Run(trial.path, url, folder, environ)
                if client == CHROMIUM:
                    assert browser is not None
                    ok, said = _browsed(run, browser, trial)
                else:
                    trial.arm()
                    ok, said = CLIENTS[client](run, texts)
            tally = tallies.setdefault(client, Tally())
            tally.runs += 1
            tally.cuts += cutter.cuts
            end, fault = trial.end(ok)
            tally.ends[end] += 1
            tally.sent += cutter.passed if end == "stored" else 0
            if fault:
                faults.append(f"{number}, {client}, {way}: {fault}: {said}")
            elif end not in ("stored", "refused"):
                tally.ends[f"({said[:60]})"] += 1
    figures = "; ".join(f"{name}: {tally}" for name, tally in tallies.items())
    if missing:
        figures += f"; not installed: {', '.join(missing)}"
    return Outcome(figures, faults)


def _browsed(run: Run, browser: Browser, trial: _Trial) -> tuple[bool, str]:
    # Its own page, with 403, has the same origin.
    browser.open(run.url)
    trial.arm()
    data = b64encode(run.path.read_bytes()).decode()
    browser.run(_IN_BROWSER, run.path.name, data, OTHER)
    said = str(browser.wait("window.pushed"))
    return said == "stored", said


class _Trial:
    """A file, the cuts, and what happens at them."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        name: str,
        chance: random.Random,
        number: int,
    ) -> None:
        self._server = server
        self._content = content(name, SIZE)
        self._other = content(f"other {name}", 1000)
        self.path = folder / name
        self.path.write_bytes(self._content)
        cuts = chance.randrange(1, MOST_CUTS + 1)
        self._offsets = [chance.randrange(SIZE * 2 // 3) for _ in range(cuts)]
        self._kill_at = chance.randrange(1, cuts + 1)
        self._rival_at = chance.randrange(1, cuts + 1)
        self._has_rival = number % RIVAL_EVERY == 0
        self._rival: int | None = None
        self._cutter: Cutter | None = None

    @contextmanager
    def cutting(self, port: int) -> Iterator[Cutter]:
        """A proxy to a port. It cuts nothing before :meth:`arm`."""
        self._cutter = cutter = Cutter(port, [], self._at_cut)
        try:
            yield cutter
        finally:
            cutter.close()

    def arm(self) -> None:
        """From now on, connections are cut."""
        assert self._cutter is not None
        self._cutter.passed = 0
        self._cutter.arm(self._offsets)

    def _at_cut(self, number: int) -> None:
        if self._has_rival and number == self._rival_at:
            self._rival = self._push_other()
        if number == self._kill_at:
            self._server.signal(signal.SIGKILL)
            self._server.wait()
            self._server.start()

    def _push_other(self) -> int:
        other = self.path.with_suffix(".other")
        other.write_bytes(self._other)
        url = f"{self._server.url}/{OTHER}/{self.path.name}"
        done = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-T", other, url],
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        other.unlink()
        return int(done.stdout)

    def end(self, ok: bool) -> tuple[str, str | None]:
        """How the run ended, and what is wrong, if anything is."""
        stored = self._server.home / "web01" / self.path.name
        found = stored.read_bytes() if stored.exists() else None
        self.path.unlink()
        if ok:
            whole = found == self._content and self._rival != 200
            return "stored", None if whole else "a success, and the file is not stored"
        if self._rival == 200:
            right = found == self._other
            return "refused", None if right else "another file than the one with 200"
        if found == self._content:
            return "stored, with an error", None
        return "gave up", None if found is None else "a partial file is stored"


def _install(folder: Path) -> list[str]:
    """Install tus-js-client.

    :returns: the clients that cannot run
    """
    missing = []
    command = ("npm", "install", "--no-audit", "--no-fund", "tus-js-client@4")
    if (
        shutil.which("npm") is None
        or subprocess.run(
            command, cwd=folder, capture_output=True, check=False, timeout=5 * PATIENCE
        ).returncode
    ):
        missing += [name for name in CLIENTS if name.startswith("tus-js")]
    for package, module in (("tuspy", "tusclient"), ("aiotus", "aiotus")):
        if importlib.util.find_spec(module) is None:
            missing.append(package)
    try:
        Browser().close()
    except SkipTest:
        missing.append(CHROMIUM)
    return missing


def _environ(folder: Path, server: Server) -> dict[str, str]:
    (folder / ".file-bucket").write_text(f"Authorization: Bearer {OTHER}\n")
    certificate = str(server.folder / "cert.pem")
    names = ("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")
    return {
        **dict.fromkeys((*names, "SSL_CERT_FILE"), certificate),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "TOKEN": OTHER,
    }


def _server(folder: Path, closing: ExitStack) -> tuple[Server, dict[str, int]]:
    """A daemon, and its ports by way: its own, nginx's and HAProxy's."""
    direct, behind, nginx, haproxy = free_ports(4)
    tls = f"ssl:{behind}:key.pem:cert.pem:interface=127.0.0.1"
    server = Server(
        folder / "daemon",
        listen=[f"tcp:{direct}:interface=127.0.0.1", f"haproxy:{tls}"],
        trusted_proxies=["127.0.0.1"],
    )
    write_pair(server.folder)
    server.start()
    closing.callback(server.stop)
    pair = server.folder
    site = shipped(
        "nginx.conf",
        {
            "listen 443": f"listen 127.0.0.1:{nginx}",
            "    listen [::]:443 ssl;\n": "",
            "/etc/ssl/backup/fullchain.pem": f"{pair}/cert.pem",
            "/etc/ssl/backup/key.pem": f"{pair}/key.pem",
            "/var/log/nginx/error.log": f"{folder}/error.log",
            "http://127.0.0.1:1234": f"http://127.0.0.1:{direct}",
        },
    )
    _begin(closing, *nginx_command(folder, site))
    text = shipped(
        "haproxy.cfg",
        {
            "bind :443": f"bind 127.0.0.1:{haproxy}",
            "    bind [::]:443 v6only\n": "",
            "127.0.0.1:1443": f"127.0.0.1:{behind}",
            "    user haproxy\n    group haproxy\n": "",
        },
    )
    (folder / "haproxy.cfg").write_text(text)
    _begin(closing, "haproxy", "-db", "-f", str(folder / "haproxy.cfg"))
    for port in (nginx, haproxy):
        if not comes(partial(listens, port)):
            raise AssertionError("a proxy does not start")
    return server, {"direct": direct, "nginx": nginx, "HAProxy": haproxy}


def _begin(closing: ExitStack, *command: str) -> None:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    closing.callback(process.wait, PATIENCE)
    closing.callback(process.terminate)
