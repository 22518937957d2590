"""Upload a file with boto3, several times at once: URL BUCKET KEY SECRET FILE COUNT.

Prints the seconds from the first byte to the last answer.
"""

from __future__ import annotations

import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3


def main() -> None:
    """Upload, and print the time."""
    url, bucket, key, secret, path, count = sys.argv[1:]
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )

    def upload(_: int) -> None:
        with open(path, "rb") as file:
            client.upload_fileobj(file, bucket, f"boto3/{secrets.token_hex(8)}")

    begin = time.monotonic()
    with ThreadPoolExecutor(int(count)) as pool:
        list(pool.map(upload, range(int(count))))
    print(time.monotonic() - begin)


main()
