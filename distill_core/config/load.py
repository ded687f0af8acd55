"""Loading a `RunConfig` from a preset or a YAML file, with ``key=value`` overrides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distill_core.config.addresses import check_config
from distill_core.config.explain import explain, suggest
from distill_core.config.parsing import MAX_YAML_BYTES, MAX_YAML_DEPTH, Tree, parse_yaml
from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError, one_line, shown
from distill_core.naming.addresses import check_credentials

__all__ = ["fingerprint", "load_run", "parse_yaml", "preset_names", "to_yaml", "validate_run"]

MAX_PARENTS = 20  # files that extend each other


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped presets, sorted."""
    folder = resources.files("distill_core.presets")
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_run(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run of a preset (or of a path that ends in .yaml) with its overrides.

    Args:
        name: a shipped preset, or a YAML file with the same keys.
        overrides: ``dotted.key=value``; the value is parsed as YAML.

    Raises:
        ConfigError: unknown preset or key (with a suggestion), a value out of range, or an address
            with credentials.
    """
    check_credentials(name, key="preset")
    tree = partial(_resolve, name, children=())
    return _loaded(tree, overrides, preset=Path(name).stem, where=name)


def load_text(text: str, overrides: Sequence[str] = (), *, preset: str, where: str) -> RunConfig:
    """Return the run of a YAML document that is in no file.

    Args:
        text: of the document.
        overrides: as those of `load_run`.
        preset: name of the run's config, as that of the file would be.
        where: names the document in errors.

    Raises:
        ConfigError: as `load_run`.
    """
    return _loaded(
        lambda: _merged_over_parent(parse_yaml(text, where=where), where, children=()),
        overrides,
        preset=preset,
        where=where,
    )


def parse_overrides(overrides: Sequence[str], *, where: str) -> dict[str, Any]:
    """Return the values of overrides by their dotted keys; the last one of a key wins.

    Raises:
        ConfigError: an override is not of the form ``dotted.key=value``.
    """
    return dict(_parse_override(override, where=where) for override in overrides)


def validate_run(tree: Mapping[str, Any], *, where: str) -> RunConfig:
    """Return a plain tree as a `RunConfig`; the first problem raises a `ConfigError`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, where, RunConfig)) from None


def to_yaml(run: RunConfig) -> str:
    """Return the resolved tree as YAML, in the order of the schema, with every default."""
    return dump_yaml(run.model_dump(mode="json"))


def dump_yaml(tree: Any) -> str:
    """Return a plain tree as YAML, as runs store it."""
    return yaml.safe_dump(tree, sort_keys=False, width=100)


def fingerprint(run: RunConfig) -> str:
    """Return 8 hex digits of a hash over every value of the tree."""
    text = json.dumps(run.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _resolve(name: str, *, children: tuple[str, ...]) -> Tree:
    """Read one file and merge it over the preset it extends."""
    if name in children or len(children) > MAX_PARENTS:
        raise ConfigError(
            f"{name}: extends itself through {' -> '.join(children[-3:])}. Remove one `extends`."
        )
    return _merged_over_parent(parse_yaml(_read(name), where=name), name, children=children)


def _loaded(
    read: Callable[[], Tree], overrides: Sequence[str], *, preset: str, where: str
) -> RunConfig:
    """Return the run of a tree with its overrides, checked."""
    try:
        tree = read()
        for override in overrides:
            _apply_override(tree, override, where=where)
    except ConfigError as error:  # names and keys come from outside and may contain anything
        raise ConfigError(one_line(error)) from None
    config = validate_run(tree | {"preset": preset}, where=where)
    check_config(config)
    return config


def _merged_over_parent(tree: Any, name: str, *, children: tuple[str, ...]) -> Tree:
    """Return the tree of a document, merged over the preset it extends."""
    if not isinstance(tree, dict):
        kind = "empty" if tree is None else f"a {type(tree).__name__}"
        raise ConfigError(
            f"{name}: {kind}, expected a YAML mapping of a run's keys. `distill show PRESET` "
            "prints one."
        )
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise ConfigError(
            f"{name}: extends = {shown(parent)}: expected the name of a preset, or the path of a "
            ".yaml file. Correct it."
        )
    check_credentials(parent, key="extends")
    return _merge(_resolve(parent, children=(*children, name)), tree)


def _read(name: str) -> bytes:
    """Return the content of a preset or of a file, but no more than a parser accepts."""
    if name.endswith((".yaml", ".yml")):
        return _read_file(name)
    if name not in preset_names():
        hint = suggest(name, preset_names()) or "Run `distill show` for a list of presets."
        if Path(name).suffix or "/" in name:
            hint = "A file of your own has a name that ends in .yaml."
        raise ConfigError(f"{name}: no such preset. {hint}")
    return (resources.files("distill_core.presets") / f"{name}.yaml").read_bytes()


def _read_file(name: str) -> bytes:
    """Return the beginning of a file; messages name it as it was written, as a `Path` alters it."""
    path = Path(name)
    try:
        if path.is_dir():
            raise ConfigError(f"{name}: a folder, expected a file of YAML. Correct the path.")
        if not path.is_file():
            raise ConfigError(f"{name}: no such file. Check the path.")
        with path.open("rb") as file:
            return file.read(MAX_YAML_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{name}: cannot be read ({reason}). Check the path and its permissions."
        ) from None


def _merge(base: Tree, top: Tree) -> Tree:
    """Return `base` updated by `top`, key by key; `terms` is replaced as a whole."""
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "terms":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _parse_override(override: str, *, where: str) -> tuple[str, Any]:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(
            f"{where}: override {shown(override)}, expected the form dotted.key=value. Correct it."
        )
    return dotted, parse_yaml(text, where=f"{where}: {dotted}") if text else None


def _apply_override(tree: Tree, override: str, *, where: str) -> None:
    dotted, value = _parse_override(override, where=where)
    *parents, leaf = dotted.split(".")
    if len(parents) > MAX_YAML_DEPTH:
        raise ConfigError(
            f"{where}: override of {shown(dotted)}: {len(parents) + 1} levels, at most "
            f"{MAX_YAML_DEPTH} expected. Correct the key."
        )
    node = tree
    for depth, key in enumerate(parents):
        if node.get(key) is None:
            _check_key(parents[0], where=where)
            node[key] = {}
        if not isinstance(node[key], dict):
            path = ".".join(parents[: depth + 1])
            raise ConfigError(f"{where}: {path} is a value, so {dotted} cannot be set inside it.")
        node = node[key]
    node[leaf] = value


def _check_key(key: str, *, where: str) -> None:
    """Raise a `ConfigError` for a first-level key that the schema does not contain."""
    if key not in RunConfig.model_fields:
        hint = suggest(key, RunConfig.model_fields) or "Remove it."
        raise ConfigError(f"{where}: {key}: no such key. {hint}")
