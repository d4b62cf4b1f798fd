"""Passwords and tokens of the environment's addresses, which no message, log or record may hold."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

HIDDEN = "***"
IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#]*@")
ADDRESSES = re.compile(r"MODELSCOPE_ENDPOINT|PIP_(EXTRA_)?INDEX_URL|\w+_PROXY", re.IGNORECASE)
TOKENS = re.compile(r"MODELSCOPE_\w*TOKEN")
SHORT = 4  # characters: what is shorter also stands in other words, and is hidden inside an address only


def redacted(text: str) -> str:
    """Return the text with every user name and password of an address, and every secret of the environment, hidden."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, f"{HIDDEN}@" if secret.endswith("@") else HIDDEN)
    return IN_ADDRESS.sub(f"{HIDDEN}@", text)


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        if TOKENS.fullmatch(name):
            yield from _long(value)
        elif ADDRESSES.fullmatch(name) and "@" in value:
            user_info = value.rpartition("://")[2].rpartition("@")[0]
            yield f"{user_info}@"
            yield from _long(user_info.partition(":")[2] or user_info)


def _long(secret: str) -> list[str]:
    """Return what may be quoted of a secret: the whole, decoded, and its parts, if an address ends inside it."""
    return [each for each in (secret, unquote(secret), *re.split("[/?#:@]", secret)) if len(each) >= SHORT]
