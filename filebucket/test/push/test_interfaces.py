"""What receiving a push asks of it."""

from __future__ import annotations

import inspect
import re

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.push import receive
from filebucket.push.interfaces import IIncoming
from filebucket.test.kit.uploads import push
from filebucket.test.web.test_put import post, put


class IncomingTests(SynchronousTestCase):
    """:class:`IIncoming`, on both of its sides."""

    def test_fronts(self) -> None:
        """A PUT and a form have all of it, and so has what stands in for them."""
        for incoming in (put(), post(), push(), push(named=False)):
            self.assertTrue(verifyObject(IIncoming, incoming))

    def test_all_of_it_is_asked(self) -> None:
        """And nothing else: another front has no more to do."""
        asked = re.findall(r"\b_?incoming\.(\w+)", inspect.getsource(receive))
        self.assertEqual(set(IIncoming), set(asked))
