"""The coverage-guided fuzzer for bodies, :mod:`proofs.atheris_body`, in a separate
process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from proofs.outcome import Outcome

LONGEST = 4096
"""Bytes of an input."""

WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\n", b";a=b\r\n", b"--b\r\n", b"--b--"),
    *(b"Content-Disposition: form-data; ", b'name="file"', b'; filename="a"'),
    *(b"; filename*=utf-8''", b"%ff", b"%22", b"\\", b'"', b"boundary=", b"\xff"),
    *(b"Content-Length: ", b"Content-Transfer-Encoding: base64", b"Content-Type: "),
    *(b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"HTTP/1.0", b"HEAD "),
    *(b"X-Checksum-Sha256: ", b"Content-Digest: sha-256=:", b"Content-Range: "),
    *(b"Upload-Offset: ", b"Upload-Length: ", b"Upload-Complete: ?0", b"PATCH "),
    *(b"Tus-Resumable: 1.0.0", b"Upload-Metadata: filename ", b"Upload-Defer-Length: "),
    *(b"DELETE ", b"OPTIONS ", b"Trailer: Content-Digest", b"/uploads/"),
)
"""The characters of inputs."""

MEMORY = 2048
"""MiB of memory for the process."""

GRACE = 120.0
"""Seconds that it may run over its time."""


def prove(folder: Path, seconds: int) -> Outcome:
    """Run it for a number of seconds."""
    corpus = folder / "corpus"
    corpus.mkdir()
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "proofs.atheris_body", str(corpus)),
            *(f"-max_total_time={seconds}", f"-max_len={LONGEST}"),
            f"-dict={words}",
            *(f"-rss_limit_mb={MEMORY}", "-timeout=20", "-print_final_stats=1"),
            f"-artifact_prefix={folder}/",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=Path(__file__).parent.parent,
        timeout=seconds + GRACE,
        check=False,
    )
    said = done.stdout + done.stderr
    tried = re.search(r"^stat::number_of_executed_units:\s+(\d+)", said, re.MULTILINE)
    inputs = int(tried[1]) if tried else 0
    # From the last such line; there is none if a seed failed.
    reached = re.findall(r"\bcov: (\d+) ft: (\d+) corp: (\d+)/", said)
    covered, features, kept = map(int, reached[-1] if reached else (0, 0, 0))
    figures = (
        f"{inputs:,} inputs, {inputs / seconds:,.0f}/s;"
        f" {covered:,} edges, {features:,} features, {kept:,} inputs kept"
    )
    if done.returncode == 0 and covered:
        return Outcome(figures)
    crash = next(folder.glob("*-*"), None)
    data = crash.read_bytes() if crash else b""
    raised = re.findall(r"^[\w.]*(?:Error|Exception|Refusal)\b.*$", said, re.MULTILINE)
    why = raised[-1] if raised else said[-300:]
    return Outcome(figures, [f"exit {done.returncode}: {why} for {data[:300]!r}"])


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)
