"""A recipe's keys, and a network's fields, as flags."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, Field, create_model

from resnetkit.errors import UsageError
from resnetkit.recipes.schema import Expect, ModelRecipe, Recipe


class RecipeFlags(Recipe):
    """How a recipe's keys are written as flags. What its author measured is no flag."""

    expect: Annotated[Expect, Parameter(parse=False)] = Expect()


class NetworkFlags(ModelRecipe):
    """How a network's fields are written as flags, where nothing is loaded."""

    weights: Annotated[str | None, Parameter(parse=False)] = None


def lists() -> frozenset[str]:
    """The flags that take a list of numbers or names."""
    found = {"--allow-change", "--scales"}
    for name, section in Recipe.model_fields.items():
        for key, field in getattr(section.annotation, "model_fields", {}).items():
            if "tuple" in str(field.annotation) and "dict" not in str(field.annotation):  # which is written as JSON
                found.add(f"--{name}.{key.replace('_', '-')}")
    return frozenset(found)


Flags = TypeVar("Flags", bound=BaseModel)


def _with_keys_of(section: type[BaseModel], *, without: Sequence[str] = ()) -> Callable[[type[Flags]], type[Flags]]:
    """Give flags every key of a section, as text that holds one value or several."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if name not in without:
                inner = _with_keys_of(kind)(create_model(kind.__name__))
                fields[name] = (inner, inner())
        else:
            fields[name] = (str | None, Field(None, description=field.description))
    return lambda flags: create_model(flags.__name__, __base__=flags, __doc__=flags.__doc__, **fields)


@_with_keys_of(Recipe, without=("expect",))
class GridFlags(BaseModel):
    """How the keys of a sweep are written as flags: each has one value, or several."""

    def alternatives(self) -> dict[str, list[Any]]:
        """The values of each key that was given, by dotted name; those of lists are lists. Raises `UsageError`."""
        return {key: alternatives(key, text) for key, text in _given(self)}


def _given(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name in type(section).model_fields:  # in the order of a recipe, whatever that of the flags
        value = getattr(section, name) if name in section.model_fields_set else None
        if isinstance(value, BaseModel):
            yield from _given(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def alternatives(key: str, text: str) -> list[Any]:
    """What is between commas; between semicolons where there are any, and for keys whose value is itself a list.

    Raises `UsageError` (exit code 2) where there is nothing.
    """
    flag = f"--{key.replace('_', '-')}"
    is_list, is_json = flag in lists(), key == "augment.extra"
    parts = text.split(";" if ";" in text or is_list or is_json or key in WHOLE else ",")
    values = [part.strip() for part in parts if part.strip()]
    if not values:
        raise UsageError(f"{flag} has no value", remedy=f"{flag} A,B")
    if not is_list:
        return list(values)
    return [[each for part in value.strip("[]()").split(",") if (each := part.strip())] for value in values]


WHOLE = frozenset(("data.group_by", "data.label_from", "data.name"))
"""Keys with one value, in which there may be commas."""
