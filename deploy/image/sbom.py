"""Print the bill of materials of a lock as CycloneDX 1.6 JSON: what it installs on this platform.

python sbom.py LOCK > sbom.cdx.json

The output depends on the lock and the platform alone: it has no time and no random number.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """Return a component for each pinned package whose marker is true on this platform.

    Args:
        lock: text of a lock in pip's format, with hashes.

    Raises:
        ValueError: a package is not pinned.
    """
    found = []
    for entry in _entries(lock):
        package = Requirement(HASH.sub("", entry).strip())
        (pin,) = [each for each in package.specifier if each.operator == "=="] or [None]
        if pin is None:
            raise ValueError(f"{package.name} is not pinned; make the lock anew with `make lock`")
        if package.marker is None or package.marker.evaluate():
            found.append(_component(canonicalize_name(package.name), pin.version, entry))
    return sorted(found, key=lambda each: str(each["purl"]))


def _entries(lock: str) -> list[str]:
    lines = [line for line in lock.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


def _component(name: str, version: str, entry: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        # Each file of the release that may be installed: a wheel for this platform, or the source.
        "externalReferences": [
            {
                "type": "distribution",
                "url": purl,
                "hashes": [{"alg": "SHA-256", "content": each} for each in HASH.findall(entry)],
            }
        ],
    }


def document(lock: str) -> dict[str, Any]:
    """Return the whole bill of materials; its serial number is a hash of the lock."""
    digest = sha256(lock.encode()).digest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "distill", "name": "distill"}},
        "components": components(lock),
    }


if __name__ == "__main__":
    print(json.dumps(document(Path(sys.argv[1]).read_text(encoding="utf-8")), indent=1))
