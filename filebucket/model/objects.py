"""The settings of an object store."""

from __future__ import annotations

from attrs import frozen

LEAST_PART = 5 * 1024 * 1024
"""Bytes of the smallest part of a multipart upload, except the last one (S3)."""

MOST_PART = 512 * 1024 * 1024
"""Bytes of the largest part that may be configured: each push in progress has up to
two on the home's disk."""


@frozen
class S3:
    """An object store with the S3 API.

    :param endpoints: URLs of its gateways, which are used in turn
    :param names_bucket: S3 bucket for the records that publish files; not versioned
    :param data_bucket: S3 bucket for the data of files
    :param region: as the credentials are signed for
    :param prefix: what all keys begin with; empty, or ends with a slash
    :param credentials: file with the credentials of the daemon; None if systemd or the
        environment has them
    :param delete_credentials: file with the credentials that may delete, which the
        daemon does not read
    :param ca: file with the certificates of the authorities that signed those of the
        gateways; None is those that the system trusts
    :param part_size: bytes of a part of a large file
    """

    endpoints: tuple[str, ...]
    names_bucket: str
    data_bucket: str
    region: str = "us-east-1"
    prefix: str = ""
    credentials: str | None = None
    delete_credentials: str | None = None
    ca: str | None = None
    part_size: int = 8 * 1024 * 1024
