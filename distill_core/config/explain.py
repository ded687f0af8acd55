"""The first problem that pydantic finds in a tree, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distill_core.errors import one_line, shown

UNKNOWN = "extra_forbidden"  # pydantic's name for a key that a model does not have

MAX_WORD = 100  # characters of a name that is compared with the known ones


def explain(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Return the first problem in one line: where, the value, the expectation.

    Unknown keys come first: a mistyped key is also a missing one.

    Args:
        error: of the validation.
        where: names the source of the tree.
        model: that the tree should have been; its fields are suggested for unknown keys.
    """
    problems = error.errors(include_url=False)
    unknown = (problem for problem in problems if problem["type"] == UNKNOWN)
    return one_line(f"{where}: {_explain(next(unknown, problems[0]), model)}")


def _explain(problem: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            *parents, leaf = problem["loc"]
            hint = suggest(str(leaf), _fields_at(model, parents))
            return f"{path}: no such key. {hint or 'Remove it.'}"
        case "missing":
            return f"{path}: missing, and it has no default. Set {path}=VALUE."
        case "value_error":
            return f"{path or 'run'}: {problem['ctx']['error']}."
        case _:
            return f"{path} = {shown(problem['input'])}: {_lower(problem['msg'])}."


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word closest to a mistyped one; empty if none is."""
    close = difflib.get_close_matches(word[:MAX_WORD], list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def _fields_at(model: Any, path: Sequence[str | int]) -> Iterator[str]:
    """Yield the legal keys of the schema node at `path`."""
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


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
