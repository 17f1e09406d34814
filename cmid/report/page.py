"""The page around the sections: header, contents, styles; one file that opens offline and asks nothing of anyone."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from cmid.report.markup import Markup, join, tag

SHOWN_SKIPPED = 50  # names listed; the rest are in skipped.csv


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        anchor: its name in links.
        title: what it shows.
        how_to_read: one plain sentence.
        body: the figures.
    """

    anchor: str
    title: str
    how_to_read: str
    body: Markup


@dataclass(frozen=True)
class Absent:
    """A section that is not on the page.

    Attributes:
        title: what it would show.
        reason: why it cannot, and what would make it appear.
    """

    title: str
    reason: str


@dataclass(frozen=True)
class Header:
    """What the run was.

    Attributes:
        title: the run's name.
        facts: name and value, in order.
        warnings: what the reader must know before trusting the figures, one sentence each.
        settings: the resolved settings, nested.
        skipped: file name and reason of each image that could not be read.
        kicker: what kind of page it is.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    settings: Mapping[str, Any] | None = None
    skipped: Sequence[tuple[str, str]] = ()
    kicker: str = "Pre-training report"


def render(header: Header, sections: Sequence[Section | Absent]) -> str:
    """The whole page as HTML text. Its own policy forbids any request and any script but its own."""
    style, script = _own("page.css"), _own("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    present = [s for s in sections if isinstance(s, Section)]
    absent = [s for s in sections if isinstance(s, Absent)]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{header.title} · cmid report"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        _header(header),
        tag("nav", [tag("a", s.title, href=f"#{s.anchor}") for s in present], aria_label="Contents"),
        tag("main", [_section(s) for s in present], _absent(absent)),
        tag("script", Markup(script)),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _own(name: str) -> str:
    return (files("cmid.report") / name).read_text(encoding="utf-8")


def _section(section: Section) -> Markup:
    return tag(
        "section",
        tag("h2", section.title),
        tag("p", section.how_to_read, class_="read"),
        section.body,
        id=section.anchor,
    )


def _absent(absent: Sequence[Absent]) -> Markup | None:
    if not absent:
        return None
    listed = (join((tag("dt", a.title), tag("dd", a.reason))) for a in absent)
    return tag("section", tag("h2", "Not shown"), tag("dl", *listed, class_="absent"), id="absent")


def _header(header: Header) -> Markup:
    warnings = tag("ul", [tag("li", w) for w in header.warnings], class_="warnings") if header.warnings else None
    facts = (tag("div", tag("dt", name), tag("dd", value)) for name, value in header.facts)
    return tag(
        "header",
        tag("p", header.kicker, class_="kicker"),
        tag("h1", header.title),
        warnings,
        tag("dl", *facts, class_="facts"),
        _skipped(header.skipped),
        _settings(header.settings) if header.settings else None,
    )


def _skipped(skipped: Sequence[tuple[str, str]]) -> Markup | None:
    if not skipped:
        return None
    rows = [tag("tr", tag("td", name), tag("td", reason)) for name, reason in skipped[:SHOWN_SKIPPED]]
    more = len(skipped) - len(rows)
    return tag(
        "details",
        tag("summary", f"Skipped files ({len(skipped):,})"),
        tag("div", tag("table", *rows), class_="scroll"),
        tag("p", f"and {more:,} more in skipped.csv") if more else None,
    )


def _settings(settings: Mapping[str, Any]) -> Markup:
    flat = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    groups = [("run", flat)] + [(name, value) for name, value in settings.items() if isinstance(value, Mapping)]
    tables = (
        tag(
            "div",
            tag("h3", name),
            tag("table", *(tag("tr", tag("td", key), tag("td", _plain(value))) for key, value in group.items())),
        )
        for name, group in groups
        if group
    )
    return tag("details", tag("summary", "Settings"), tag("div", *tables, class_="settings"))


def _plain(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)
