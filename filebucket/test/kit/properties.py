"""What must hold of every input, tried on those that hypothesis thinks of.

The same ones in every run, and few enough for seconds: whoever wants more sets
``FILEBUCKET_EXAMPLES``, and then they are new ones each time.
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
    """``data``, cut at those places as far as it has them."""
    edges = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


PLACES = st.lists(st.integers(0, 400), max_size=6)
