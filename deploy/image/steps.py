"""Print the steps of a Dockerfile as a script of bash, which rehearse.sh executes in a root.

python steps.py DOCKERFILE [NAME=VALUE]...

It knows the instructions that deploy/Dockerfile uses, and stops at any other.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

IGNORED = {"FROM", "CMD", "ENTRYPOINT", "LABEL"}  # nothing is executed for them
VARIABLE = re.compile(r"\$\{(\w+)\}")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest.strip())
        for line in joined.splitlines()
        if line.strip()
        for name, _, rest in [line.strip().partition(" ")]
    ]


def steps(text: str, given: dict[str, str]) -> list[str]:
    """Return the lines of a script that executes a Dockerfile.

    Args:
        text: of the Dockerfile.
        given: arguments of the build.

    Raises:
        ValueError: an instruction is not known here, or an argument has no value.
    """
    arguments: dict[str, str] = {}
    environment: dict[str, str] = {}
    folder, user, script = "/", "root", []

    def filled(value: str) -> str:
        return VARIABLE.sub(lambda match: arguments[match[1]], value)

    for name, rest in instructions(text):
        if name == "ARG":
            argument, _, default = rest.partition("=")
            arguments[argument] = given.get(argument, default)
        elif name == "ENV":
            environment.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "WORKDIR":
            folder = rest
            script.append(f'mkdir -p "$root{folder}"')
        elif name == "USER":
            user = rest
        elif name == "COPY":
            *sources, target = filled(rest).split()
            script += [_copy(source, folder, target) for source in sources]
        elif name == "RUN":
            script += _run(filled(rest), folder, user, environment)
        elif name not in IGNORED:
            raise ValueError(f"{name}: not known here; add it to deploy/image/steps.py")
    exported = "\n".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    return [*script, f'printf "%s\\n" {shlex.quote(exported)} > "$folder/environment"']


def _copy(source: str, folder: str, target: str) -> str:
    place = f"{folder}/{target}" if target != "./" else f"{folder}/{Path(source).name}"
    return f'rm -rf "$root{place}"; cp -r "$here/{source}" "$root{place}"'


def _run(command: str, folder: str, user: str, environment: dict[str, str]) -> list[str]:
    if user != "root":
        raise ValueError(f"RUN as {user}: not known here; add it to deploy/image/steps.py")
    variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
    whole = f"cd {folder}; {command}"
    enter = 'unshare --mount --pid --fork "$here/deploy/image/enter.sh" "$root"'
    return [
        'before=$(du -sxm "$root" | cut -f1); started=$SECONDS',
        f"{enter} env {variables} /bin/sh -ec {shlex.quote(whole)} >&2",
        'echo "$(($(du -sxm "$root" | cut -f1) - before)) MB, $((SECONDS - started)) s: "'
        f"{shlex.quote(command[:70])}",
    ]


if __name__ == "__main__":
    pairs = dict(each.split("=", 1) for each in sys.argv[2:])
    print("\n".join(steps(Path(sys.argv[1]).read_text(encoding="utf-8"), pairs)))
