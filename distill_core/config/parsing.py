"""Parsing of YAML that somebody else wrote, bounded in size, depth and time.

A config has a few hundred values. Far larger texts, deep nesting, and aliases that expand to many
values are refused while they are read, before they are built.
"""

from __future__ import annotations

from typing import Any

import yaml

from distill_core.errors import ConfigError, one_line, shown

MAX_YAML_BYTES = 256 * 1024
MAX_YAML_VALUES = 10_000  # keys and values, those that aliases repeat included
MAX_YAML_DEPTH = 20  # a config has four levels; 20 leaves room for a message that names the key

Tree = dict[str, Any]


def parse_yaml(text: str | bytes, *, where: str) -> Any:
    """Return the tree of a YAML document; keys are texts.

    Args:
        text: of the document; bytes are UTF-8, with or without a byte order mark.
        where: names the document in errors.

    Raises:
        ConfigError: it is too large, is not UTF-8 or YAML, or has duplicate keys.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(
            f"{where}: {len(text)} bytes of YAML, at most {MAX_YAML_BYTES} expected. Remove what "
            "is not part of a config."
        )
    loader = None
    try:
        loader = _BoundedLoader(text if isinstance(text, str) else text.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _check_expanded(node)
        return loader.construct_document(node)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: byte {error.start} is not UTF-8. Save the file with the encoding UTF-8."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: invalid YAML: {one_line(_problem(error))}.") from None
    finally:
        if loader is not None:
            loader.dispose()


class _BoundedLoader(yaml.SafeLoader):
    """SafeLoader that stops early at unreasonable documents, and refuses duplicate keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; counts it and its depth."""
        self._values, self._depth = self._values + 1, self._depth + 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._values > MAX_YAML_VALUES:
            raise _refusal(f"more than {MAX_YAML_VALUES} keys and values", mark)
        if self._depth > MAX_YAML_DEPTH:
            raise _refusal(f"more than {MAX_YAML_DEPTH} levels of nesting", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node; PyYAML raises many kinds of errors for malformed ones."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            kind = str(node.tag).rpartition(":")[2]
            raise _refusal(f"{shown(node.value)} is not a valid {kind}", node.start_mark) from None

    def mapping(self, node: yaml.MappingNode) -> Tree:
        """Return a mapping whose keys are texts, each of them once."""
        keys: set[str] = set()
        for key, _ in node.value:
            name = _key(key)
            if name in keys:
                raise _refusal(f"duplicate key {shown(name)}", key.start_mark)
            keys.add(name)
        return {_key(key): self.construct_object(value, deep=True) for key, value in node.value}


_BoundedLoader.add_constructor("tag:yaml.org,2002:map", _BoundedLoader.mapping)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _refusal("a key is a list or a mapping, expected a word", node.start_mark)
    return str(node.value)


def _check_expanded(root: yaml.Node) -> None:
    """Refuse a document whose aliases repeat too many values, or lead back to themselves."""
    sizes: dict[int, int | None] = {}  # by node; None while its parts are counted

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise _refusal("an alias leads back to itself", node.start_mark)
        if not known:
            sizes[id(node)] = None
            known = sizes[id(node)] = 1 + sum(map(size, _parts(node)))
        if known > MAX_YAML_VALUES:
            raise _refusal(
                f"its aliases repeat more than {MAX_YAML_VALUES} keys and values", node.start_mark
            )
        return known

    size(root)


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _problem(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, without PyYAML's snippet, which may begin inside a secret."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error)
    text = ", ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    return text if mark is None else _located(text, mark)


def _refusal(problem: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.YAMLError(_located(problem, mark))


def _located(problem: str, mark: yaml.Mark) -> str:
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})"
