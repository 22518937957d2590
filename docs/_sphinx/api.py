"""``.. api:: filebucket.store.interfaces`` shows the docstrings of a module.

It reads the source and imports nothing: interfaces of zope are shown like classes, and
the site needs none of the daemon's dependencies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from inspect import cleandoc
from textwrap import indent
from typing import Any

from docutils import nodes
from links import TOP
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective


class Api(SphinxDirective):
    required_arguments = 1
    optional_arguments = 30

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for name in self.arguments:
            path = TOP / f"{name.replace('.', '/')}.py"
            self.env.note_dependency(str(path))
            text = "\n".join(module(name, path.read_text(encoding="utf-8")))
            found += self.parse_text_to_nodes(text, allow_section_headings=True)
        return found


def module(name: str, source: str) -> Iterator[str]:
    """A section about a module."""
    tree = ast.parse(source)
    yield f"{name}\n{'=' * len(name)}\n\n.. py:module:: {name}\n"
    yield ast.get_docstring(tree) or ""
    yield ""
    yield from members(tree.body)


def members(body: list[ast.stmt], inside: str = "") -> Iterator[str]:
    """The public members of a module or class that have a docstring, or that an
    interface promises.
    """
    for at, each in enumerate(body):
        following = body[at + 1] if at + 1 < len(body) else None
        if isinstance(each, ast.ClassDef) and public(each.name):
            text = ast.get_docstring(each)
            if text is not None:
                yield from described("class", signature(each), text)
                yield indent("\n".join(members(each.body, each.name)), "   ")
        elif isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(each)
            if text is not None and public(each.name):
                kind = "method" if inside else "function"
                marks = {ast.unparse(mark) for mark in each.decorator_list}
                if marks & {"property", "cached_property"}:
                    yield from described("property", each.name, text)
                else:
                    yield from described(kind, call(each, inside), text)
        elif isinstance(each, (ast.Assign, ast.AnnAssign)):
            target = each.targets[0] if isinstance(each, ast.Assign) else each.target
            text = attribute(each, following)
            if isinstance(target, ast.Name) and public(target.id) and text:
                yield from described("attribute" if inside else "data", target.id, text)


def public(name: str) -> bool:
    return not name.startswith("_")


def attribute(here: ast.Assign | ast.AnnAssign, following: ast.stmt | None) -> str:
    """The text in an interface's ``Attribute``, or beneath a constant."""
    match here.value, following:
        case ast.Call(func=ast.Name(id="Attribute"), args=[ast.Constant(str(text))]), _:
            return cleandoc(text)
        case _, ast.Expr(ast.Constant(str(text))):
            return cleandoc(text)
    return ""


def described(kind: str, head: str, text: str) -> Iterator[str]:
    yield f".. py:{kind}:: {head}\n"
    yield indent(text, "   ") + "\n"


def signature(of: ast.ClassDef) -> str:
    """A class, with the fields of its values."""
    fields = [
        f"{each.target.id}: {ast.unparse(each.annotation)}"
        for each in of.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        if public(each.target.id)
    ]
    marks = " ".join(ast.unparse(each) for each in of.decorator_list)
    values = "frozen" in marks or "define" in marks or "dataclass" in marks
    return f"{of.name}({', '.join(fields)})" if values and fields else of.name


def call(of: ast.FunctionDef | ast.AsyncFunctionDef, inside: str) -> str:
    """A function or method, without ``self``."""
    arguments = of.args
    if inside and arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    returns = f" -> {ast.unparse(of.returns)}" if of.returns else ""
    return f"{of.name}({ast.unparse(arguments)}){returns}"


class Dashes(SphinxTransform):
    """Make a dash of two hyphens, which Sphinx writes after the names of parameters."""

    default_priority = 800

    def apply(self, **_: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if text == " -- ":
                text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("api", Api)
    app.add_transform(Dashes)
    return {"parallel_read_safe": False}
