"""The page as HTML, rendered from ``templates/``.

Every text is escaped, so no name from a client can become an element, an attribute or a
script. A state is a word and a shape, never only a color. The page uses no inline style
or script, and nothing from other hosts. Rendering is slow: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined

from filebucket.admin.view import SEVERITIES, WORDS, view
from filebucket.base.text import counted, printable
from filebucket.base.threads import beside_pushes
from filebucket.catalogue.overview import Overview
from filebucket.config.address import FirstSteps
from filebucket.model.push import Receiving

TEMPLATES = Environment(
    loader=DictLoader(
        {
            each.name: each.read_text(encoding="utf-8")
            for each in files("filebucket.admin").joinpath("templates").iterdir()
            if each.name.endswith(".html")
        }
    ),
    autoescape=True,
    undefined=StrictUndefined,
    # A line with only a tag leaves no empty line.
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)
TEMPLATES.globals.update(counted=counted, words=WORDS)


def compile_templates() -> None:
    """Compile all templates, which takes as long as the page of 500 buckets. The first
    page waits for that otherwise.
    """
    with beside_pushes():
        for name in TEMPLATES.list_templates():
            TEMPLATES.get_template(name)


def page(
    overview: Overview,
    zone: tzinfo,
    receiving: Sequence[Receiving] = (),
    steps: FirstSteps | None = None,
) -> bytes:
    """The page.

    :param zone: time zone of the times shown
    :param receiving: files that are being received, with labels of buckets, and with
        tokens masked
    :param steps: commands to show if there is no bucket, or one without a push
    """
    shown = view(overview, zone, receiving)
    page = TEMPLATES.get_template("page.html")
    return page.render(page=shown, icon=shown.icon, steps=steps).encode()


def unknown(reason: str) -> bytes:
    """The page if the catalogue cannot be read.

    :param reason: one line
    """
    page = TEMPLATES.get_template("unknown.html")
    return page.render(icon=SEVERITIES[-1], reason=printable(reason)).encode()
