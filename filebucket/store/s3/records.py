"""The keys of the object store, and the records that publish files.

The data of a file has a key of its own, which no other push uses. A push publishes its
file by creating a record of it under its name: as a link to a file without a name, in
a folder. A record without data never exists; data without a record is swept.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from typing import cast

import cattrs
from attrs import asdict, frozen

MOST_RECORD = 16 * 1024
"""Bytes of the largest record."""

_ID = re.compile("[0-9a-f]{32}")
_SHA256 = re.compile("[0-9a-f]{64}")


def new_id() -> str:
    """The id of a new file: 128 random bits in hex."""
    return secrets.token_hex(16)


@frozen
class Keys:
    """The keys of a store.

    :param prefix: what all begin with
    """

    prefix: str

    def names(self, directory: str) -> str:
        """What the keys of all records of a bucket begin with."""
        return f"{self.prefix}names/{directory}/"

    def name(self, directory: str, name: str) -> str:
        """The key of the record of a file."""
        return self.names(directory) + name

    def all_data(self, directory: str = "") -> str:
        """What the keys of all data begin with.

        :param directory: of the bucket; empty for all
        """
        return f"{self.prefix}data/{directory}/" if directory else f"{self.prefix}data/"

    def data(self, directory: str, name: str, identity: str) -> str:
        """The key of the data of a file."""
        return f"{self.all_data(directory)}{name}~{identity}"

    def all_marks(self) -> str:
        """What the keys of all marks begin with."""
        return f"{self.prefix}pruning/"

    def probe(self, what: str) -> str:
        """The key of an object that belongs to no file, for checks at a start."""
        return f"{self.prefix}probe/{what}"

    def mark(self, directory: str, name: str) -> str:
        """The key of the mark of a file that prune is about to delete."""
        return f"{self.all_marks()}{directory}/{name}"


@frozen
class Record:
    """What publishes a file.

    :param id: that of this push, in hex
    :param data: key of its data
    :param size: in bytes
    :param sha256: in hex
    :param time: when it was published, in seconds since the epoch
    """

    id: str
    data: str
    size: int
    sha256: str
    time: float

    def text(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self), separators=(",", ":")).encode("ascii")

    @classmethod
    def of(cls, text: bytes, keys: Keys, directory: str, name: str) -> Record:
        """A stored record.

        :raises ValueError: it is not one of that file
        """
        try:
            found = _CONVERTER.structure(json.loads(text), cls)
        except (ValueError, TypeError, RecursionError, cattrs.BaseValidationError):
            raise ValueError("its record cannot be read") from None
        if not (
            _ID.fullmatch(found.id)
            and found.data == keys.data(directory, name, found.id)
            and found.size >= 0
            and _SHA256.fullmatch(found.sha256)
            and math.isfinite(found.time)
        ):
            raise ValueError("its record is not one of file-bucket's")
        return found


def _number(value: object, _: object) -> float:
    if type(value) not in {int, float}:
        raise ValueError
    return float(cast("float", value))


def _exactly(value: object, kind: type) -> object:
    if type(value) is not kind:
        raise ValueError
    return value


_CONVERTER = cattrs.Converter()
_CONVERTER.register_structure_hook(str, _exactly)
_CONVERTER.register_structure_hook(int, _exactly)
_CONVERTER.register_structure_hook(float, _number)
