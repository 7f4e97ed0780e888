"""A recipe: everything that makes a checkpoint from data, or from another checkpoint, as one YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bitline.errors import ConfigError
from bitline.pruning.constraints import ColumnProportional
from bitline.pruning.finetune import TrainingPlan

__all__ = ["PruningPlan", "Recipe", "load_recipe", "read_fields", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)

_MODEL = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class PruningPlan(BaseModel):
    """The constraint the weights must keep, and how they get there."""

    model_config = _MODEL

    method: Literal["cp"] = "cp"
    """Constraint set: column-proportional."""

    rate: Annotated[float, Field(ge=1)]
    """CP rate."""

    rows: Annotated[int, Field(ge=1, le=65536)] = 128
    """Rows of a crossbar."""

    exempt_first: bool = True
    """Leave the first layer dense."""

    exempt: tuple[str, ...] = ()
    """Names of further layers to leave dense."""

    solver: Literal["oneshot"] = "oneshot"
    """Project once, then retrain with the zeros held."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.rate > self.rows:
            raise ValueError(f"rate must be at most rows: {self.rows}, got {self.rate:g}")
        return self

    def constraint(self) -> ColumnProportional:
        """The constraint set."""
        return ColumnProportional(self.rate, self.rows)


class Recipe(BaseModel):
    """How a checkpoint was made."""

    model_config = _MODEL

    architecture: Annotated[str, Field(min_length=1)]
    """One of ``bitline.network.architectures``."""

    data: str = "digits"
    """Data set, as ``bitline.data.open_dataset`` takes it; its training split is trained on."""

    normalisation: str | None = None
    """Of the images; the data set's own by default."""

    start: str | None = None
    """Name of the recipe, in the same folder, whose checkpoint this one starts from; random weights by default."""

    pruning: PruningPlan | None = None
    """What to prune before training; nothing by default."""

    training: TrainingPlan
    """What to train after that."""

    def canonical(self) -> str:
        """The recipe as one line of JSON, keys sorted, defaults written out."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    ConfigError
        A file that is missing, unreadable or no YAML; an unknown key, a wrong type or an impossible value.
    """
    return validated(Recipe, read_fields(path), f"recipe {path}")


def read_fields(path: str | Path) -> dict[str, Any]:
    """The fields of a YAML file, not yet checked.

    Raises
    ------
    ConfigError
        A file that is missing, unreadable or no YAML mapping.
    """
    where = f"recipe {path}"
    try:
        fields = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError(f"{where}: not valid YAML: {reason}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: expected a mapping of fields, got {type(fields).__name__}")
    return fields


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
        raise ConfigError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
