"""The page as HTML, made from ``templates/``.

Every text is escaped where it is put in: no name of a client's can become an element,
an attribute or a script. Nothing is said by color alone: a state is a word, and a
shape. There is no style and no script but the two files that the page names, and
nothing of another host.

The templates are read and compiled once, when this is imported. Nothing here waits or
asks the time. It takes a while, so that it is to be called in a thread.
"""

from __future__ import annotations

from datetime import tzinfo
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined

from filebucket.admin.view import SEVERITIES, WORDS, view
from filebucket.base.text import counted, printable
from filebucket.catalogue.overview import Overview

_TEMPLATES = Environment(
    loader=DictLoader(
        {
            each.name: each.read_text(encoding="utf-8")
            for each in files("filebucket.admin").joinpath("templates").iterdir()
            if each.name.endswith(".html")
        }
    ),
    autoescape=True,
    undefined=StrictUndefined,
    # A line that has only a tag leaves nothing in the page.
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)
_TEMPLATES.globals.update(counted=counted, words=WORDS)
_PAGE = _TEMPLATES.get_template("page.html")
_UNKNOWN = _TEMPLATES.get_template("unknown.html")


def page(overview: Overview, zone: tzinfo) -> bytes:
    """The page.

    :param zone: what times of day are shown in
    """
    shown = view(overview, zone)
    return _PAGE.render(page=shown, icon=shown.icon).encode()


def unknown(reason: str) -> bytes:
    """The page that says that nothing can be said.

    :param reason: a line
    """
    return _UNKNOWN.render(icon=SEVERITIES[-1], reason=printable(reason)).encode()
