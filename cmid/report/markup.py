"""HTML written so that it cannot be forgotten to escape: every string is text unless it is `Markup`."""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias


class Markup(str):
    """A string that is HTML already; everything else is escaped on its way into a tag."""

    __slots__ = ()


Child: TypeAlias = "str | float | Iterable[str] | None"
VOID = frozenset({"br", "img", "input", "link", "meta"})


def join(children: Iterable[Child]) -> Markup:
    """The children one after another: text escaped, markup as it is, None left out, iterables flattened."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, (str, int, float)):
            parts.append(escape(str(child)))
        else:
            parts.append(join(child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """One HTML or SVG element.

    Args:
        name: of the element.
        children: text, markup or iterables of both.
        attributes: `class_` gives class, `view_box` gives viewBox, other underscores become hyphens; True gives
            a bare attribute, None and False leave it out.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = "viewBox" if key == "view_box" else key.rstrip("_").replace("_", "-")
        if key == "preserveaspectratio":
            key = "preserveAspectRatio"
        written.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening) if name in VOID else Markup(f"{opening}{join(children)}</{name}>")
