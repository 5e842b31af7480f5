"""The pieces of HTML the status page is made of.

Promise: what others wrote goes through `text` or `plain` and comes out bounded, printable, escaped and without user
names in addresses; the rest takes HTML that has been through them.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from sidecar.status_page import amounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_CHARACTERS = 160
_LONGEST = 10_000  # looked at
# Control characters, those that turn the direction of writing, and what cannot be encoded.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_USERINFO = re.compile(r"(?<=://)[^/?#\s@]*@")


def plain(text: str, characters: int = _CHARACTERS) -> str:
    """Return text that is safe in an element: bounded, printable, escaped."""
    text = _USERINFO.sub("", text[:_LONGEST])
    if len(text) > characters:
        text = text[: characters - 1] + "…"
    return html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text))


def text(text: str, characters: int = _CHARACTERS) -> str:
    """Likewise, and isolated: a right-to-left override ends where the text ends."""
    return f"<bdi>{plain(text, characters)}</bdi>"


def share(part: int, whole: int) -> str:
    return html.escape(amounts.share(part, whole))


def section(title: str, body: str, more: str = "", *, wide: bool = False) -> str:
    more = f" <span>· {more}</span>" if more else ""
    return f"<section{css_class('wide', when=wide)}><h2>{title}{more}</h2>{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose cells know their titles: on a phone each row becomes a card."""
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "".join(
        f"<tr><td>{first}</td>"
        + "".join(f'<td data-title="{title}">{cell}</td>' for title, cell in zip(head[1:], rest, strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    wide = css_class("cards", when=len(head) > 3)
    return f"<table{wide}><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def bar(parts: Iterable[tuple[str, float]], name: str = "bar") -> str:
    """Draw shares of one as a bar. Attributes of SVG, because the page's policy allows no style attributes."""
    left, drawn = 0.0, []
    for part, share in parts:
        drawn.append(f'<rect{css_class(part, when=bool(part))} x="{left:.2f}" width="{share * 100:.2f}" height="8"/>')
        left += share * 100
    return (
        f'<svg class="{name}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">{"".join(drawn)}</svg>'
    )


def css_class(name: str, *, when: bool) -> str:
    return f' class="{name}"' if when else ""


def marked(name: str, text: str, *, when: bool) -> str:
    return f'<span class="{name}">{text}</span>' if when else text
