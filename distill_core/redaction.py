"""Texts for people and logs: credentials are hidden, and control characters are made visible.

What `redacted` hides is what `distill_core.naming.addresses` refuses, so an address that was
accepted is printed as it is.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

HIDDEN = "***"
# The length of a scheme is limited, so that a long word takes no quadratic time.
SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{1,19}"
URL = re.compile(rf"(?P<scheme>{SCHEME})(?P<slashes>:/{{2,}})(?P<rest>(?:(?!{SCHEME}://)\S)*)")
SECRET_PARAMETER = re.compile(
    r"([?&;#][^=&\s]*(?:secret|token|passw|pwd|sig|cred|key|auth|session)[^=&\s]*=)[^&\s'\")]+",
    re.IGNORECASE,
)
ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")  # the id of a key of AWS
AZURE_CONTAINER = re.compile(r"[^/@:%]+@[^/@:%]+")  # abfss://container@account.dfs.core.windows.net
DECODINGS = 3  # of a text that was percent-encoded several times
LOCAL = ("file", "local")
AZURE = ("abfs", "abfss", "az")
WITHOUT_PORT = ("s3", "s3a", "gs", "gcs", *AZURE, "memory")  # a colon precedes a secret
PUNCTUATION = "'\"`.,;:)>}"  # of a sentence that continues after a URL


def redacted(text: str) -> str:
    """Return a text in which the credentials of all URLs are hidden.

    They are users and passwords in front of a host or bucket, also with slashes in them or
    percent-encoded, parameters such as ``?token=`` or those of presigned URLs, and ids of keys.
    """
    text = SECRET_PARAMETER.sub(rf"\1{HIDDEN}", URL.sub(_without_user, text))
    return ACCESS_KEY.sub(HIDDEN, text)


def sanitised(text: str) -> str:
    """Return a text for a terminal or a log: redacted, with control characters as escapes.

    Line breaks and tabs are kept.
    """
    visible = (c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in redacted(text))
    return "".join(visible)


def decoded(text: str) -> str:
    """Return a text without percent-encoding, and with ordinary in place of full-width characters.

    What looks like the name of a folder may then be a URL.
    """
    for _ in range(DECODINGS):
        text = unicodedata.normalize("NFKC", unquote(text))
    return text


def _without_user(url: re.Match[str]) -> str:
    """Hide everything in front of the last @ of a URL with a user; without an @, the whole URL."""
    scheme, rest = url["scheme"], url["rest"]
    if scheme.lower() in LOCAL or not _has_user(scheme.lower(), unquote(unquote(rest))):
        return url[0]
    host = rest.rpartition("@")[2] if "@" in rest else None
    return f"{scheme}{url['slashes']}{HIDDEN}" + ("" if host is None else f"@{host}")


def _has_user(scheme: str, rest: str) -> bool:
    """Return whether a URL begins with a user or a key, which may contain slashes."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rstrip(PUNCTUATION)
    if scheme in AZURE and AZURE_CONTAINER.fullmatch(authority):
        return False
    if "@" in authority or ACCESS_KEY.fullmatch(authority):
        return True
    host, colon, port = re.sub(r"^\[[^\]]*\]", "ipv6", authority).partition(":")
    if not colon or host == "arn":  # an ARN is the address of an access point, not a secret
        return False
    # After a host and a port, an @ may still end a secret that begins with digits and a slash.
    return scheme in WITHOUT_PORT or not port.isdecimal() or "@" in rest
