"""Sign requests to an object store."""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from filebucket.base.errors import OperatorError
from filebucket.store.s3.credentials import Credentials
from filebucket.store.s3.signing import Signer

URL = "http://s3.example.org:9000/bucket/d%C3%BC~/a%20b%2B.gz?partNumber=1&uploadId=x"

DIGEST = hashlib.sha256(b"content").digest()


class SigningTests(SynchronousTestCase):
    def sign(self, url: str, credentials: Credentials) -> Mapping[str, str]:
        headers = Signer("eu-1").sign(
            credentials, "PUT", url, {"if-none-match": "*"}, DIGEST
        )
        return {name.lower(): value for name, value in headers.items()}

    def test_signature(self) -> None:
        """As the documentation of Signature Version 4 computes it."""
        headers = self.sign(URL, Credentials("KEY", "SECRET", "TOKEN"))
        self.assertEqual(DIGEST.hex(), headers["x-amz-content-sha256"])
        self.assertEqual("TOKEN", headers["x-amz-security-token"])
        names = (
            "host;if-none-match;x-amz-content-sha256;x-amz-date;x-amz-security-token"
        )
        at = headers["x-amz-date"]
        scope = f"{at[:8]}/eu-1/s3/aws4_request"
        signed = {**headers, "host": "s3.example.org:9000"}
        lines = "".join(f"{name}:{signed[name]}\n" for name in names.split(";"))
        parts = urlsplit(URL)
        canonical = (
            f"PUT\n{parts.path}\n{parts.query}\n{lines}\n{names}\n{DIGEST.hex()}"
        )
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        key = b"AWS4SECRET"
        for each in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}"):
            key = hmac.digest(key, each.encode(), "sha256")
        self.assertEqual(
            f"AWS4-HMAC-SHA256 Credential=KEY/{scope}, SignedHeaders={names},"
            f" Signature={key.hex()}",
            headers["authorization"],
        )

    def test_permanent(self) -> None:
        """Without a session token."""
        headers = self.sign(URL, Credentials("KEY", "SECRET"))
        self.assertNotIn("x-amz-security-token", headers)

    def test_missing(self) -> None:
        """botocore is optional."""
        Signer("eu-1")
        self.addCleanup(sys.modules.__setitem__, "botocore", sys.modules["botocore"])
        sys.modules["botocore"] = None  # type: ignore[assignment]
        error = self.assertRaises(OperatorError, Signer, "eu-1")
        self.assertIn("python3-botocore", str(error))
        self.assertIn("file-bucket[s3]", str(error))
        self.assertNotIn("\n", str(error))
