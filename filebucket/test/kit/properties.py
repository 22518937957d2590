"""Property tests with hypothesis.

By default they use the same examples in every run, and few enough to take seconds.
``FILEBUCKET_EXAMPLES`` sets a larger number of examples, which are new in each run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_EXAMPLES = os.environ.get("FILEBUCKET_EXAMPLES")

trying = settings(
    max_examples=int(_EXAMPLES or 100),
    derandomize=_EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """``data``, cut at those places that are inside it."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


PLACES = st.lists(st.integers(0, 400), max_size=6)
