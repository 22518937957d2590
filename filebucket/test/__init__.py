"""The tests of file-bucket; run them with ``trial filebucket``."""

import os
import signal

from twisted.python.failure import Failure
from twisted.trial.itrial import IReporter
from twisted.trial.unittest import SynchronousTestCase

from filebucket.test.kit.descriptors import open_descriptors

# In the background of a script, or with nohup, these signals are ignored, and child
# processes inherit that. A signal with a handler gets its default in them instead.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

_run = SynchronousTestCase.run


def _run_and_look(case: SynchronousTestCase, result: IReporter) -> None:
    """Run a test, which fails if it leaves a descriptor open, or this process at
    another priority. Otherwise the garbage collector would close the descriptor during
    another test, which would get the warning; and all tests after it would be slow.
    """
    # The first use of the reactor opens descriptors.
    from twisted.internet import reactor  # noqa: F401, PLC0415

    before, nice = open_descriptors(), os.nice(0)
    _run(case, result)
    # When Twisted first listens, it reserves a descriptor for when there are no more.
    left = {each for each in open_descriptors() - before if each[1] != os.devnull}
    if left:
        result.addError(case, Failure(AssertionError(f"left open: {sorted(left)}")))
    if os.nice(0) != nice:
        result.addError(case, Failure(AssertionError("left at another priority")))


SynchronousTestCase.run = _run_and_look  # type: ignore[method-assign]
