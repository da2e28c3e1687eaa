"""What of a program's error may stand in a published report: its words, but nothing of this machine."""

from __future__ import annotations

import re

URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"|,)>]+")
PATH = re.compile(r"(?<![\w>])(?:~|\.{1,2})?(?:/[\w.@+~-]+){2,}/?|(?<![\w>])~/[\w./@+~-]*")


def public(text: str) -> str:
    """The first line of it, without URLs and paths."""
    return PATH.sub("<path>", URL.sub("<url>", text.strip().partition("\n")[0]))
