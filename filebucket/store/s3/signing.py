"""Sign requests to an object store (AWS Signature Version 4), with botocore.

botocore is needed only if the configuration has an object store. It signs a request in
70 us; it sends nothing here, and reads no configuration of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from filebucket.base.errors import OperatorError
from filebucket.store.s3.credentials import Credentials


class Signer:
    """Signs requests for one region."""

    def __init__(self, region: str) -> None:
        """
        :raises OperatorError: botocore is not installed
        """
        try:
            from botocore import auth, awsrequest  # noqa: PLC0415 - it may be missing
        except ImportError:
            raise OperatorError(
                "an object store needs the Python library botocore, which is not"
                " installed (Debian: python3-botocore; pip: file-bucket[s3])"
            ) from None
        self._request = awsrequest.AWSRequest
        self._auth = auth.S3SigV4Auth
        self._region = region

    def sign(
        self,
        credentials: Credentials,
        method: str,
        url: str,
        headers: Mapping[str, str],
        sha256: bytes,
    ) -> Mapping[str, str]:
        """The headers of a signed request.

        :param url: with the query, all quoted as it is sent
        :param headers: further headers; they are signed, too
        :param sha256: digest of the body; 32 bytes
        """
        request = self._request(method, url, headers=dict(headers))
        auth = self._auth(credentials, "s3", self._region)
        # Otherwise it would read and hash the body once more.
        auth.payload = lambda _: sha256.hex()
        auth.add_auth(request)
        signed: dict[str, Any] = dict(request.headers.items())
        return {name: str(value) for name, value in signed.items()}
