"""Tests of :mod:`filebucket.push.interfaces`."""

from __future__ import annotations

import inspect
import re

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from filebucket.push import part, receive, reread, sessions
from filebucket.push.interfaces import Action, IIncoming, IResuming, Resume
from filebucket.test.kit.uploads import push, request
from filebucket.test.web.test_put import post, put
from filebucket.web.resume import Native, NativeCreation, Tus, TusCreation


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

    def test_resuming(self) -> None:
        """So it is with requests about resumable uploads."""
        self.assertTrue(verifyObject(IResuming, request(Resume(Action.LOOK))))
        for kind in (Native, NativeCreation, Tus, TusCreation):
            self.assertTrue(IResuming.implementedBy(kind))
        sources = "".join(map(inspect.getsource, (sessions, part, reread)))
        asked = re.findall(r"\b_?(?:incoming|current)\.(\w+)", sources)
        own = set(IResuming.names())
        self.assertEqual(own, own & set(asked))
        self.assertLess(set(asked), set(IResuming))
