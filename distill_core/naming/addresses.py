"""The one judge of addresses: one spelling for one place, no credentials, or a refusal.

An address is a folder or file on this machine, or a URL. It is judged as text, before a store is
opened, and before an address is stored with a run. What is refused is never repeated in a message
where it may hold a secret.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from distill_core.errors import ConfigError
from distill_core.redaction import AZURE_CONTAINER, LOCAL, SCHEME, decoded, redacted

ALIASES = {"s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}  # other names of one place
BUCKETS = ("s3", "gs", "abfs")  # with conditional create
WEB = ("http", "https")
MAX_LENGTH = 1000  # an object's key has at most 1024 bytes
BEGINNING = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(:/*)(.*)", re.DOTALL)
CHAIN = re.compile(r"::(?![^\[]*\])")  # not in an IPv6 address
NAMES = "|".join((*BUCKETS, *ALIASES, *LOCAL, *WEB))
NO_COLON = re.compile(rf"({NAMES})//", re.IGNORECASE)  # s3//bucket
KNOWN = re.compile(rf"({NAMES})(:|//)", re.IGNORECASE)
CONTAINER = AZURE_CONTAINER.pattern
ARN = r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:\d*:[\w:-]+"  # of an access point
BUCKET = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]*|{ARN}")
PACKAGE = re.compile(r"package:[a-z0-9-]+")  # a file of an installed package
PARAMETERS = re.compile(r"[?#][^/]*=")
WEB_PATH = re.compile(r"[^?#]*(\?(download|dl|raw)=(0|1|true|false))?")

# For the forms of Prefect's page: an absolute folder, or a bucket without credentials in front.
STORE_PATTERN = (
    rf"^(/.*|(({'|'.join((*BUCKETS, *ALIASES))})://(?!A[KS]IA[0-9A-Z]{{16}})({BUCKET.pattern})|abfss?://{CONTAINER})"
    r"(?!.*//)(?!.*/\.\.?(/|$))(?!.*[?#][^/]*=)(/.*)?)$"
)
# Any other text: no user in front of a host or bucket, and no parameter that holds a secret.
TEXT_PATTERN = (
    r"^(?!.*(?<!abfs)(?<!abfss)://[^/\s]*@)(?!.*://(?!arn:)[^/\s:]*:(?!:|\d+(/|\s|$)))"
    r"(?!.*[?&][^=&\s]*([Ss]ecret|[Tt]oken|[Ss]ig|[Pp]assw|[Cc]redential|[Kk]ey)[^=&\s]*=)"
)
HOST_PATTERN = rf"{TEXT_PATTERN}[^@]*$"


def store_address(text: str, *, key: str = "store") -> str:
    """Return the one spelling of a store's address: an absolute folder, or a URL.

    Args:
        text: as a person entered it.
        key: names the setting in errors.

    Raises:
        ConfigError: the address holds credentials, cannot be a store, or is spelled in another
            way than the one that the message names.
    """
    address = data_address(text, key=key)
    scheme = "" if "://" not in address else address.partition(":")[0]
    if scheme not in ("", "memory", *BUCKETS) or (scheme and CHAIN.search(address)):
        raise ConfigError(
            f"{key} = {address!r}: expected a folder or s3://bucket/prefix (also gs://, abfs://). "
            f"{scheme}:// has no conditional create, which protects results from a second driver."
        )
    return address


def data_address(text: str, *, key: str) -> str:
    """Return the one spelling of an address to read from: an absolute path, or a URL.

    Raises:
        ConfigError: as `store_address`, except that every kind of URL is accepted, and chains such
            as ``simplecache::s3://bucket/prefix``.
    """
    _check_characters(text, key)
    beginning = BEGINNING.fullmatch(text)
    if text[0] in "/.~" or beginning is None:
        _check_folder(text, key)
        return _folder(text, key)
    if len(beginning[1]) == 1:
        return _drive(text, key)
    first, *others = CHAIN.split(text)
    if not others:
        return _link(text, key)
    links = [(link, _link(link, key)) for link in (first, *others)]
    return "::".join(f"file://{url}" if _is_local(link) else url for link, url in links)


def checkpoint_address(text: str, *, key: str) -> str:
    """Return the one spelling of a teacher's file: an address, or ``package:NAME``.

    Raises:
        ConfigError: as `data_address`.
    """
    return text if PACKAGE.fullmatch(text) else data_address(text, key=key)


def is_local(text: str) -> bool:
    """Return whether an address is a path on this machine, which may be relative."""
    return "://" not in text and not PACKAGE.fullmatch(text)


def check_text(text: str, *, key: str) -> None:
    """Refuse a text with credentials in a URL, whether or not its characters are encoded.

    Raises:
        ConfigError: names the key, but not the text.
    """
    if any(redacted(spelling) != spelling for spelling in (text, decoded(text))):
        raise ConfigError(
            f"{key}: the address contains credentials, which would be stored with every run. "
            "Set them in the environment (AWS_ACCESS_KEY_ID, ...) or use your cloud's roles."
        )


def check_credentials(text: str, *, key: str) -> None:
    """Refuse the address of a place with credentials in it, also if its scheme is misspelled.

    Raises:
        ConfigError: as `check_text`.
    """
    for spelling in (text, re.sub(r"\s", "", text), decoded(text)):
        check_text(spelling, key=key)
        check_text(re.sub(rf"^({SCHEME})(?::/*|/{{2,}})", r"\1://", spelling), key=key)


def check_host(text: str, *, key: str) -> None:
    """Refuse an address with a user in front of its host and port.

    Raises:
        ConfigError: names the key, but not the user or the credentials in the text.
    """
    check_text(text, key=key)
    if "@" in decoded(text):
        raise ConfigError(
            f"{key}: the address has a user or credentials in front of its host, which would be "
            "printed and stored. Write host:port alone."
        )


def http_address(text: str, *, example: str) -> str:
    """Return the address of a service, without a slash at its end.

    Raises:
        ValueError: it is no http or https address of a host, or it has parameters.
    """
    try:
        parts = urlsplit(text)
        is_service = parts.scheme in WEB and parts.hostname and parts.port != 0
    except ValueError:
        is_service = False
    if not is_service or parts.query or parts.fragment:
        raise ValueError(f"expected an address like {example}, or https://...")
    return text.rstrip("/")


def _check_characters(text: str, key: str) -> None:
    """Refuse credentials first, as the later messages repeat the text."""
    check_credentials(text, key=key)
    if not text.strip():
        raise ConfigError(f"{key}: an empty address. Set a folder or s3://bucket/prefix.")
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{key}: an address of {len(text)} characters, at most {MAX_LENGTH}.")
    if not text.isprintable() or text != text.strip():
        raise ConfigError(
            f"{key} = {text!a}: blanks around the address, or characters that cannot be "
            "printed. Remove them."
        )


def _check_folder(text: str, key: str) -> None:
    """Refuse what looks like a folder's name, but is a URL that was misspelled or encoded."""
    if NO_COLON.match(text):
        raise ConfigError(f"{_shown(key, text)}: the colon in front of // is missing.")
    plain = decoded(text)
    beginning = BEGINNING.fullmatch(plain)
    if (beginning and ":/" in plain) or KNOWN.match(plain):
        raise ConfigError(
            f"{key}: a URL whose beginning is percent-encoded or in full-width characters. Write "
            "it like s3://bucket/prefix, or write ./ in front of the name of a folder."
        )


def _folder(text: str, key: str) -> str:
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ConfigError(
            f"{key} = {text!r}: no such user. Write ./{text} for a folder of this name."
        )
    absolute = os.path.abspath(expanded)
    return absolute[1:] if absolute.startswith("//") else absolute


def _drive(text: str, key: str) -> str:
    if os.name == "nt":
        return os.path.abspath(text)
    raise ConfigError(
        f"{_shown(key, text)}: a drive of Windows, which this system does not have. Write ./ in "
        "front of the name of a folder."
    )


def _link(text: str, key: str) -> str:
    """Return one link of a chain: a URL, a path, or the name of a protocol alone."""
    beginning = BEGINNING.fullmatch(text)
    if beginning is None:
        return text
    scheme, colon, rest = beginning[1].lower(), beginning[2][:3], beginning[2][3:] + beginning[3]
    scheme = ALIASES.get(scheme, scheme)
    if scheme in LOCAL:
        return _local_url(text, colon, rest, key)
    if colon != "://":
        raise ConfigError(
            f"{_shown(key, text)}: expected {scheme}:// and a name. Write ./ in front of the name "
            "of a folder."
        )
    if not WEB_PATH.fullmatch(rest) if scheme in WEB else PARAMETERS.search(rest):
        raise ConfigError(
            f"{key}: the address has parameters or a fragment, which would be stored with every "
            "run and may be secret. Use one without, or download the file."
        )
    return _url(scheme, rest.lstrip("/") if scheme == "memory" else rest, key)


def _is_local(link: str) -> bool:
    return link.partition(":")[0].lower() in LOCAL and ":" in link


def _url(scheme: str, rest: str, key: str) -> str:
    """Return the spelling of a URL; the parts of its path are names, except on the web."""
    host, _, path = rest.rstrip("/").partition("/")
    if scheme in BUCKETS and not host:
        raise ConfigError(
            f"{key} = {f'{scheme}://{rest}'!r}: no bucket; expected s3://bucket/prefix."
        )
    if not _is_host(scheme, host):
        raise ConfigError(f"{_shown(key, f'{scheme}://{rest}')}: not an address. Correct the host.")
    parts = path.split("/") if path else []
    if scheme not in WEB and {"", ".", ".."}.intersection(parts):
        raise ConfigError(
            f"{key} = {f'{scheme}://{rest}'!r}: in a bucket, an empty part, `.` and `..` are names "
            f"like others. {_correction(f'{scheme}://{host}', parts)}"
        )
    return "/".join((f"{scheme}://{host}", *parts))


def _is_host(scheme: str, host: str) -> bool:
    if scheme in BUCKETS:
        container = scheme == "abfs" and AZURE_CONTAINER.fullmatch(host)
        return bool(container or BUCKET.fullmatch(host))
    try:
        _ = urlsplit(f"//{host}").port
    except ValueError:
        return False
    return True


def _correction(root: str, parts: list[str]) -> str:
    """Return what to write instead of a path with empty parts or dots."""
    names: list[str] = []
    for part in parts:
        if part == "..":
            if not names:
                return "`..` does not lead upwards in a bucket: leave it out."
            names.pop()
        elif part not in ("", "."):
            names.append(part)
    return f"Write {'/'.join((root, *names))}"


def _local_url(text: str, colon: str, rest: str, key: str) -> str:
    path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    if colon == "://" and path.startswith("/"):
        return _folder(path, key)
    raise ConfigError(
        f"{_shown(key, text)}: expected file:///folder, with three slashes, or the folder alone."
    )


def _shown(key: str, text: str) -> str:
    """Return the beginning of a message, without the text where a secret might stand in it."""
    return f"{key}: the address" if "@" in text or PARAMETERS.search(text) else f"{key} = {text!r}"
