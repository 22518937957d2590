"""Edits of JSON text in any layout."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filebucket.config import jsontext
from filebucket.test.kit.properties import trying

SPACE = st.text(" \t\n\r", max_size=3)
BUCKET = st.fixed_dictionaries(
    {"token": st.text(max_size=9)},
    optional={
        "name": st.text(max_size=9),
        "tokens": st.lists(st.text(max_size=3), max_size=2),
        "expires": st.text(max_size=3),
        "quota": st.integers(0, 2**60),
        "}": st.none(),
    },
).flatmap(lambda bucket: st.permutations(list(bucket.items())).map(dict))
BUCKETS = st.lists(BUCKET | st.text('[]{}:,"\\aé', max_size=9), max_size=3)


def spaced(draw: st.DrawFn, value: object) -> str:
    """JSON with random space."""
    if isinstance(value, dict):
        pairs = value.items()
        inner = [f"{spaced(draw, k)}:{spaced(draw, each)}" for k, each in pairs]
        text = f"{{{','.join(inner) or draw(SPACE)}}}"
    elif isinstance(value, list):
        inner = [spaced(draw, each) for each in value]
        text = f"[{','.join(inner) or draw(SPACE)}]"
    else:
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
    return draw(SPACE) + text + draw(SPACE)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, dict[str, Any], int]:
    """A file's text, its data, and the index of a bucket that is an object."""
    buckets = draw(BUCKETS)
    index = draw(st.integers(0, len(buckets)))
    buckets.insert(index, draw(BUCKET))
    keys = {"home": "]{", "buckets": buckets, "hooks": {"buckets": [1]}}
    keys = dict(draw(st.permutations(list(keys.items()))))
    return spaced(draw, keys), keys, index


class LayoutTests(SynchronousTestCase):
    """In any layout, the changed text has the expected data in the same order."""

    @trying
    @given(files())
    def test_add(self, file: tuple[str, dict[str, Any], int]) -> None:
        text, keys, _ = file
        bucket = {"name": "new", "allow_from": ["é" * 60, "x" * 60]}
        for count in (1, 2):
            keys["buckets"] += [bucket] * count
            text = jsontext.append(text, "buckets", *[bucket] * count)
            self.assert_says(keys, text)

    @trying
    @given(files())
    def test_remove(self, file: tuple[str, dict[str, Any], int]) -> None:
        text, keys, index = file
        del keys["buckets"][index]
        self.assert_says(keys, jsontext.remove(text, "buckets", index))

    @trying
    @given(files(), st.integers(1, 2))
    def test_replace(self, file: tuple[str, dict[str, Any], int], count: int) -> None:
        text, keys, index = file
        bucket = keys["buckets"][index]
        opens = ("token", "tokens", "expires")
        tokens = [{"token_sha256": n * 64, "expires": "x"} for n in "12"[:count]]
        new: dict[str, Any] = tokens[0] if count == 1 else {"tokens": tokens}
        text = jsontext.replace_members(text, "buckets", index, opens, new)
        changed = json.loads(text)
        found = changed["buckets"][index]
        written = {key: found[key] for key in ("token_sha256", *opens) if key in found}
        self.assertEqual(new, written)
        for each in (found, bucket):
            for key in ("token_sha256", *opens):
                each.pop(key, None)
        self.assertEqual(list(bucket.items()), list(found.items()))
        self.assertEqual(keys, changed)

    @trying
    @given(
        files(),
        st.dictionaries(
            st.sampled_from(["name", "quota", "expires", "new", "}"]),
            st.text(max_size=9)
            | st.lists(st.text(max_size=3))
            | st.dictionaries(st.text(max_size=9), st.text(max_size=99))
            | st.none(),
        ),
        st.sets(st.sampled_from(["name", "tokens", "quota", "none"])),
    )
    def test_set(
        self,
        file: tuple[str, dict[str, Any], int],
        new: dict[str, Any],
        gone: set[str],
    ) -> None:
        text, keys, index = file
        bucket = keys["buckets"][index]
        for key in gone:
            bucket.pop(key, None)
        bucket |= new
        text = jsontext.set_members(text, "buckets", index, new, gone)
        self.assert_says(keys, text)
        found = json.loads(text)["buckets"][index]
        self.assertEqual(list(bucket.items()), list(found.items()))

    @trying
    @given(files(), st.integers(0, 3))
    def test_make_object(
        self, file: tuple[str, dict[str, Any], int], index: int
    ) -> None:
        text, keys, _ = file
        index %= len(keys["buckets"])
        found = keys["buckets"][index]
        if not isinstance(found, dict):
            keys["buckets"][index] = {"token": found}
        self.assert_says(keys, jsontext.make_object(text, "buckets", index, "token"))

    def test_as_its_neighbors(self) -> None:
        """In one line, or indented, as the neighbors are."""
        for before, after in (
            ('{"a": [{"b": 1}]}', '{"a": [{"b": 1}, {"c": 2}]}'),
            ('{"a": []}', '{"a": [{"c": 2}]}'),
            ('{\n "a": []\n}', '{\n "a": [\n  {"c": 2}\n ]\n}'),
            ('{"a": [\n    1\n]}', '{"a": [\n    1,\n    {"c": 2}\n]}'),
        ):
            self.assertEqual(after, jsontext.append(before, "a", {"c": 2}))
            last = len(json.loads(before)["a"])
            self.assertEqual(before, jsontext.remove(after, "a", last))

    def test_set_in_its_line(self) -> None:
        text = '{\n "a": [\n  {"b": 1},\n  {\n   "c": 2}]}'
        one = jsontext.set_members(text, "a", 0, {"é": [3], "b": {"x": 1}})
        self.assertEqual(text.replace('"b": 1', '"b": {"x": 1}, "é": [3]'), one)
        other = jsontext.set_members(text, "a", 1, {"d": 3})
        self.assertEqual(text.replace('"c": 2', '"c": 2,\n   "d": 3'), other)

    def test_too_long_for_a_line(self) -> None:
        """An object that no longer fits in its line is split."""
        text = '{\n  "a": [\n    {"b": 1, "c": 2}\n  ]\n}'
        new = {"d": "x" * jsontext.WIDTH}
        found = jsontext.replace_members(text, "a", 0, {"b"}, new)
        long = f'{{\n      "d": "{"x" * jsontext.WIDTH}",\n      "c": 2\n    }}'
        self.assertEqual(text.replace('{"b": 1, "c": 2}', long), found)

    def test_long_value(self) -> None:
        """An object that is too long for a line is split, as a list is."""
        text = '{\n  "a": [\n    {\n      "b": 1\n    }\n  ]\n}'
        new = {"d": {"é": {"x": 1}, "y" * jsontext.WIDTH: {"z": 2}}}
        found = jsontext.set_members(text, "a", 0, new)
        long = (
            '"b": 1,\n      "d": {\n        "é": {"x": 1},\n'
            f'        "{"y" * jsontext.WIDTH}": {{\n          "z": 2\n        }}\n'
            "      }"
        )
        self.assertEqual(text.replace('"b": 1', long), found)

    def assert_says(self, keys: dict[str, Any], text: str) -> None:
        self.assertEqual(list(keys.items()), list(json.loads(text).items()))
