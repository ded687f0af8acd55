"""Loading a `RunConfig` from a preset or a YAML file, with ``key=value`` overrides."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distill_core.config.schema import RunConfig
from distill_core.errors import ConfigError

MAX_YAML_BYTES = 1_000_000
Tree = dict[str, Any]


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
        ConfigError: unknown preset or key (with a suggestion), or a value out of range.
    """
    tree = _resolve(name, children=())
    for override in overrides:
        _apply_override(tree, override, where=name)
    tree["preset"] = Path(name).stem
    return validate_run(tree, where=name)


def validate_run(tree: Mapping[str, Any], *, where: str) -> RunConfig:
    """Return a plain tree as a `RunConfig`; the first problem raises a `ConfigError`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from None


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


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys; plain YAML silently keeps the last one."""


def _no_duplicates(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> Tree:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"duplicate key {key!r}")
    return {str(key): value for key, value in loader.construct_mapping(node, deep=True).items()}


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _no_duplicates)


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML; tags, duplicate keys and large numbers of aliases are rejected."""
    if len(text) > MAX_YAML_BYTES or text.count("*") > 1000:
        raise ConfigError(
            f"{where}: {len(text)} characters of YAML, at most {MAX_YAML_BYTES} expected, with "
            "at most 1000 asterisks. Remove what is not part of a run."
        )
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: invalid YAML: {reason}.") from None


def _resolve(name: str, *, children: tuple[str, ...]) -> Tree:
    """Read one file and merge it over the preset it extends."""
    if name in children:
        raise ConfigError(
            f"{name}: extends itself through {' -> '.join(children)}. Remove one `extends`."
        )
    tree = parse_yaml(_read(name), where=name)
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{name}: a {type(tree).__name__}, expected a YAML mapping of a run's keys."
        )
    parent = tree.pop("extends", None)
    return tree if parent is None else _merge(_resolve(parent, children=(*children, name)), tree)


def _read(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{name}: no such file. Check the path.")
        return path.read_text(encoding="utf-8")
    if name not in preset_names():
        hint = _suggest(name, preset_names()) or "Run `distill show` for a list of presets."
        raise ConfigError(f"{name}: no such preset. {hint}")
    return (resources.files("distill_core.presets") / f"{name}.yaml").read_text(encoding="utf-8")


def _merge(base: Tree, top: Tree) -> Tree:
    """Return `base` updated by `top`, key by key; `terms` is replaced as a whole."""
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "terms":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _apply_override(tree: Tree, override: str, *, where: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(
            f"{where}: override {override!r}, expected the form dotted.key=value. Correct it."
        )
    *parents, leaf = dotted.split(".")
    node = tree
    for depth, key in enumerate(parents):
        if node.get(key) is None:
            _check_key(RunConfig, parents[: depth + 1], where=where)
            node[key] = {}
        if not isinstance(node[key], dict):
            path = ".".join(parents[: depth + 1])
            raise ConfigError(f"{where}: {path} is a value, so {dotted} cannot be set inside it.")
        node = node[key]
    node[leaf] = parse_yaml(text, where=f"{where}: {dotted}") if text else None


def _check_key(model: type[BaseModel], path: Sequence[str], *, where: str) -> None:
    """Raise a `ConfigError` for a first-level key that the schema does not contain."""
    if path[0] not in model.model_fields:
        hint = _suggest(path[0], model.model_fields)
        raise ConfigError(f"{where}: {path[0]}: no such key. {hint}".rstrip())


def _explain(error: ValidationError, where: str) -> str:
    """Return the first problem in one line: where, the value, the expectation."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            *parents, leaf = problem["loc"]
            hint = _suggest(str(leaf), _fields_at(parents))
            return f"{where}: {path}: no such key. {hint}".rstrip()
        case "missing":
            return f"{where}: {path}: missing, and it has no default. Set {path}=VALUE."
        case "value_error":
            return f"{where}: {path or 'run'}: {problem['ctx']['error']}."
        case _:
            return f"{where}: {path} = {problem['input']!r}: {_lower(problem['msg'])}."


def _fields_at(path: Sequence[str | int]) -> Iterator[str]:
    """Yield the legal keys of the schema node at `path`."""
    model: Any = RunConfig
    for part in path:
        if isinstance(part, str) and part in getattr(model, "model_fields", {}):
            model = _model_in(model.model_fields[part].annotation)
    yield from getattr(model, "model_fields", {})


def _model_in(annotation: Any) -> Any:
    """Return the model class inside `X`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in models if model is not None), None)


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
