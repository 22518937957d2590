"""Tests of :mod:`filebucket.push.interfaces`."""

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
    """Both sides of :class:`IIncoming`."""

    def test_fronts(self) -> None:
        """PUTs, forms and the fake implement all of it."""
        for incoming in (put(), post(), push(), push(named=False)):
            self.assertTrue(verifyObject(IIncoming, incoming))

    def test_all_of_it_is_asked(self) -> None:
        """Receiving uses all of it and nothing else, so a front end needs no more."""
        asked = re.findall(r"\b_?incoming\.(\w+)", inspect.getsource(receive))
        self.assertEqual(set(IIncoming), set(asked))
