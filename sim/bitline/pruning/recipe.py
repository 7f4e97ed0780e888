"""Recipes as YAML files: read, and checked against the model of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bitline.errors import ConfigError
from bitline.input_files import read_text
from bitline.yaml_files import MAX_YAML_BYTES, parse_yaml

__all__ = ["read_fields", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)


def read_fields(path: str | Path) -> dict[str, Any]:
    """The fields of a YAML file (``-``: standard input), not yet checked.

    Raises
    ------
    ConfigError
        A file that is missing, unreadable or no YAML mapping.
    """
    where = f"recipe {path}"
    return parse_yaml(read_text(path, "recipe", MAX_YAML_BYTES), where)


def validated(model: type[_Model], fields: Mapping[str, Any], where: str) -> _Model:
    """Check fields against a model.

    Raises
    ------
    ConfigError
        An unknown key, a wrong type or an impossible value, with its path.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        # An unknown key explains a field that is missing, not the other way round.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: {place}: unknown key") from None
        if first["type"] == "string_unicode":
            raise ConfigError(f"{where}: {place}: expected text in UTF-8, got {first['input']!r}") from None
        raise ConfigError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
