"""Edits of JSON text that keep all other bytes as they are.

A changed value is laid out like its neighbors: in one line, or with their indent. The
text must be valid JSON (not checked here), and the change must be in a list that is a
member of the outermost object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Container, Mapping
from typing import Any

from attrs import frozen

WIDTH = 120
"""Columns up to which an object stays in one line: enough for a bucket's name and a
SHA-256."""


def append(text: str, key: str, *values: Mapping[str, Any]) -> str:
    """Add objects to the end of a list.

    :param key: the key of the list
    :param values: at least one
    :returns: the new text
    """
    found = _list(text, key)
    unit = _unit(text)
    if found.members:
        last = found.members[-1]
        indent = _indent(text, last.start)
        before = ", " if indent is None else f",\n{indent}"
        added = "".join(f"{before}{_in_list(each, indent, unit)}" for each in values)
        return text[: last.end] + added + text[last.end :]
    outer = _indent(text, _member(text, key).start) or ""
    inner = outer + unit if unit else None
    between = ", " if inner is None else f",\n{inner}"
    added = between.join(_in_list(each, inner, unit) for each in values)
    if inner is not None:
        added = f"\n{inner}{added}\n{outer}"
    return text[: found.start + 1] + added + text[found.end - 1 :]


def _in_list(value: Mapping[str, Any], indent: str | None, unit: str) -> str:
    """A member of a list; without an indent, the list is in one line."""
    if indent is None:
        return json.dumps(value, ensure_ascii=False)
    return _written(value, indent, unit)


def remove(text: str, key: str, index: int) -> str:
    """Remove a member of a list.

    :param key: the key of the list
    :returns: the new text
    """
    return _without(text, _list(text, key), index)


def replace_members(
    text: str, key: str, index: int, old: Container[str], new: Mapping[str, Any]
) -> str:
    """Replace members of an object.

    :param key: the key of the list that contains the object
    :param index: the object's index in the list
    :param old: keys of the members to remove; the object has at least one of them
    :returns: the new text
    """
    start = _list(text, key).members[index].start
    found = _container(text, start)
    places = [i for i, each in enumerate(found.members) if each.key in old]
    for place in reversed(places[1:]):
        text = _without(text, _container(text, start), place)
    first = _container(text, start).members[places[0]]
    indent = _indent(text, first.start)
    if indent is None:
        written = json.dumps(new)[1:-1]
    else:
        written = _written_members(new, indent, _unit(text))
    text = text[: first.start] + written + text[first.end :]
    return _wrapped(text, _list(text, key).members[index])


def set_members(
    text: str, key: str, index: int, new: Mapping[str, Any], gone: Collection[str] = ()
) -> str:
    """Set and remove members of an object; the others keep their places.

    :param key: the key of the list that contains the object
    :param index: the object's index in the list
    :param new: replaces members with the same keys, or comes after the last member
    :param gone: keys of members to remove, if they are there; at least one member
        stays
    """
    start = _list(text, key).members[index].start
    for each in gone:
        found = _container(text, start)
        places = [i for i, member in enumerate(found.members) if member.key == each]
        if places:
            text = _without(text, found, places[0])
    for each, value in new.items():
        text = _with(text, _container(text, start), each, value)
    return _wrapped(text, _list(text, key).members[index])


def make_object(text: str, key: str, index: int, inner: str) -> str:
    """Replace a member of a list that is no object by an object that contains it.

    :param key: the key of the list
    :param inner: the key of the member in the object
    """
    found = _list(text, key).members[index]
    old = text[found.start : found.end]
    if old.startswith("{"):
        return text
    return f"{text[: found.start]}{{{json.dumps(inner)}: {old}}}{text[found.end :]}"


@frozen
class _Member:
    """A member of an object or an array, with its offsets in the text.

    :param start: start of its key, or of its value if it has no key
    :param value: start of its value
    """

    key: str
    start: int
    value: int
    end: int


@frozen
class _Container:
    """An object or an array.

    :param start: offset of its opening bracket
    :param end: offset after its closing bracket
    """

    start: int
    members: list[_Member]
    end: int


_SPACE = re.compile(r"[ \t\r\n]*")
_JSON = json.JSONDecoder()


def _container(text: str, start: int) -> _Container:
    """The object or array at ``start``."""
    members: list[_Member] = []
    at = _skip(text, start + 1)
    while text[at] not in "]}":
        key, begin = "", at
        if text[start] == "{":
            key, at = _JSON.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        _, end = _JSON.raw_decode(text, at)
        members.append(_Member(key, begin, at, end))
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return _Container(start, members, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _top(text: str) -> _Container:
    return _container(text, _skip(text, 0))


def _member(text: str, key: str) -> _Member:
    (found,) = (each for each in _top(text).members if each.key == key)
    return found


def _list(text: str, key: str) -> _Container:
    return _container(text, _member(text, key).value)


def _indent(text: str, at: int) -> str | None:
    """The indent before ``at``; None if other text precedes it in its line."""
    before = text[text.rfind("\n", 0, at) + 1 : at]
    return before if "\n" in text[:at] and not before.strip() else None


def _unit(text: str) -> str:
    """The file's indent; empty if the file is in one line."""
    return _indent(text, _top(text).members[0].start) or ""


def _written(value: Mapping[str, Any], indent: str, unit: str) -> str:
    """An object after ``indent``, in one line if it is short enough."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) < WIDTH:
        return line
    inner = indent + unit
    return f"{{\n{inner}{_written_members(value, inner, unit)}\n{indent}}}"


def _written_members(members: Mapping[str, Any], indent: str, unit: str) -> str:
    """Members of an object, each in its own line after ``indent``."""
    return f",\n{indent}".join(
        f"{json.dumps(key, ensure_ascii=False)}:"
        f" {_written_value(each, indent, unit, len(key) + 4)}"
        for key, each in members.items()
    )


def _written_value(value: Any, indent: str, unit: str, taken: int) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + taken + len(line) < WIDTH:
        return line
    inner = indent + unit
    if isinstance(value, list):
        members = (f"{inner}{json.dumps(each, ensure_ascii=False)}" for each in value)
        return "[\n" + ",\n".join(members) + f"\n{indent}]"
    if isinstance(value, Mapping):
        return f"{{\n{inner}{_written_members(value, inner, unit)}\n{indent}}}"
    return line


def _with(text: str, container: _Container, key: str, value: Any) -> str:
    """The text with that member of an object, in its old place or at the end."""
    unit, last = _unit(text), container.members[-1]
    for each in container.members:
        if each.key == key:
            inner = _indent(text, each.start) or ""
            written = _written_value(value, inner, unit, len(key) + 4)
            return text[: each.value] + written + text[each.end :]
    indent = _indent(text, last.start)
    if indent is None:
        added = f", {json.dumps({key: value}, ensure_ascii=False)[1:-1]}"
    else:
        added = f",\n{indent}{_written_members({key: value}, indent, unit)}"
    return text[: last.end] + added + text[last.end :]


def _without(text: str, container: _Container, index: int) -> str:
    """The text without one of the container's members and its comma."""
    members = container.members
    if len(members) == 1:
        return text[: container.start + 1] + text[container.end - 1 :]
    if index:
        return text[: members[index - 1].end] + text[members[index].end :]
    return text[: members[0].start] + text[members[1].start :]


def _wrapped(text: str, member: _Member) -> str:
    """The text with an object split into lines if it is too long for one."""
    indent = _indent(text, member.start)
    old = text[member.start : member.end]
    if indent is None or "\n" in old or len(indent) + len(old) < WIDTH:
        return text
    new = _written(json.loads(old), indent, _unit(text))
    return text[: member.start] + new + text[member.end :]
