"""Keeps passwords of connection URLs out of whatever people read: logs, errors, `jobd check`.

Recognises the spellings a database or SMTP URL has. Not a scanner for secrets at large: payloads are
never logged, and settings that hold a secret say so by their type.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
# To the last @ of the word: people do not always escape the one in their password.
_IN_URL: Final = re.compile(r"(://[^\s:@/?#]*):[^\s\"]*@")
_AS_FIELD: Final = re.compile(r"((?:ssl)?password\s*=\s*)('[^']*'|[^&\s'\"]+)", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """`text` with *** in place of the password of each URL and connection string in it."""
    if "://" in text:
        text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    if "assword" in text or "ASSWORD" in text:
        text = _AS_FIELD.sub(rf"\1{HIDDEN}", text)
    return text


def redact_url(url: str) -> str:
    """`url` without its password; of what is no URL, nothing: it may be a password itself."""
    return hide_passwords(url) if "://" in url else HIDDEN
