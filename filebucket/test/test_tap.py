"""The plugin: what twistd gets, and what it says."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from twisted.application.service import IService, IServiceMaker
from twisted.plugin import getPlugins

from filebucket import tap
from filebucket.test.kit.daemon import DaemonCase


class PluginTests(DaemonCase):
    """Options, and a service."""

    def test_options(self) -> None:
        """The configuration is where Debian would have it, or where one says."""
        options = tap.Options()
        options.parseOptions([])
        self.assertEqual("/etc/file-bucket/config.json", options["config"])
        options.parseOptions(["-c", "x"])
        self.assertEqual("x", options["config"])

    def test_make_service(self) -> None:
        """twistd gets a service; mistakes are one exit, without a traceback."""
        from twisted.internet import reactor  # noqa: PLC0415 - importing installs it

        self.patch(reactor, "seconds", reactor.seconds)
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)
        before = gc.get_freeze_count()
        # As filebucket serve does, for a faster start.
        gc.disable()
        service = tap.makeService({"config": self.path})
        self.assertTrue(IService.providedBy(service))
        self.assertIs(time.monotonic, reactor.seconds)
        self.assertGreater(gc.get_freeze_count(), before)
        self.assertTrue(gc.isenabled())
        Path(self.path).write_text("[]")
        error = self.assertRaises(SystemExit, tap.makeService, {"config": self.path})
        self.assertEqual(f"file-bucket: {self.path}: $: must be an object", error.code)
        self.listen("tcp:1", "ssl:2:key.pem")
        error = self.assertRaises(SystemExit, tap.makeService, {"config": self.path})
        self.assertEqual(
            f"file-bucket: {self.path}: $.listen[1]: privateKey:"
            f" {self.folder}/key.pem: No such file or directory",
            error.code,
        )

    def test_plugin(self) -> None:
        """twistd finds the plugin, and the plugin this."""
        (maker,) = (
            each for each in getPlugins(IServiceMaker) if each.tapname == "filebucket"
        )
        self.assertIs(tap.Options, maker.options)
        self.assertIs(tap.makeService, maker.makeService)
