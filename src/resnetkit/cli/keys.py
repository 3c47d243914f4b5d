"""A recipe's keys, and a network's fields, as flags."""

from typing import Annotated

from cyclopts import Parameter

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
