"""Rewrite the golden files: `make golden`. Bump `NUMERICS` in distill_core/keys with them."""

from __future__ import annotations

import json

import torch

from distill_core.config.load import load_run, preset_names
from distill_core.config.schema import RunConfig
from tests.golden.methods import numbers_of
from tests.golden.numbers import GOLDEN, PRECISIONS
from tests.support.golden_files import number_file, preset_file


def config_defaults() -> dict[str, dict[str, object]]:
    """Return every default of the config tree, by class and field."""
    schema = RunConfig.model_json_schema()
    return {
        name: {
            field: about["default"]
            for field, about in part["properties"].items()
            if "default" in about
        }
        for name, part in sorted((schema["$defs"] | {"RunConfig": schema}).items())
        if "properties" in part
    }


def method_numbers() -> dict[str, dict[str, list[float]]]:
    """Return every preset's numbers on tiny data, to nine digits."""
    return {
        name: {part: [float(f"{v:.9g}") for v in values] for part, values in made.items()}
        for name, made in ((name, numbers_of(name)) for name in preset_names())
    }


def main() -> None:
    """Rewrite every file."""
    torch.set_num_threads(1)
    for name, make in GOLDEN.items():
        numbers = {precision: make(precision) for precision in PRECISIONS}
        number_file(name).write_text(json.dumps(numbers, indent=1) + "\n")
    methods = method_numbers()
    lines = [f'"{name}": {json.dumps(numbers)}' for name, numbers in methods.items()]
    number_file("methods").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    number_file("defaults").write_text(json.dumps(config_defaults(), indent=1) + "\n")
    for name in preset_names():
        tree = load_run(name).model_dump(mode="json")
        preset_file(name).parent.mkdir(exist_ok=True)
        preset_file(name).write_text(json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main()
