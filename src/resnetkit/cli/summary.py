"""`resnetkit summary`."""

from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import RECIPE_KEYS, Json
from resnetkit.cli.printing import answer, answer_json
from resnetkit.recipes.schema import ModelRecipe

if TYPE_CHECKING:
    from resnetkit.networks.arch import Arch


def summary_command(
    name: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    image_size: int | None = None,
    modules: Annotated[bool, Parameter(negative="")] = False,
    parameters: Annotated[bool, Parameter(negative="")] = False,
    json_output: Json = False,
    changes: Annotated[ModelRecipe | None, Parameter(name="--model", group=RECIPE_KEYS, consume_multiple=True)] = None,
) -> None:
    """Show a network stage by stage: shapes, parameters, multiply-adds.

    resnetkit summary resnet50
    resnetkit summary resnet18 --image-size 96
    resnetkit summary resnet34 --model.shortcut A
    resnetkit summary runs/NAME
    resnetkit summary resnet18 --modules

    Parameters
    ----------
    name
        A name from `resnetkit list models`, a run's folder, or a model's.
    image_size
        Side of the input in pixels. Without it: what the model was made for.
    modules
        Every module instead: its name, type, output and parameters, its parts' included.
    parameters
        Every parameter instead: its name, shape and size.
    """
    from resnetkit.networks.summary import summarise

    arch, size = _arch(name, changes)
    summary = replace(summarise(arch, size if image_size is None else image_size), name=name)
    inventory = None
    if modules or parameters:
        from resnetkit.networks.inventory import take_inventory

        inventory = take_inventory(arch, summary.image_size)
    if json_output:
        answer_json({"model": name} | summary.to_dict() | (inventory.to_dict() if inventory else {}))
        return
    if inventory is None:
        answer(*str(summary).split("\n"))
        return
    tables = [inventory.module_table()] if modules else []
    tables += [inventory.parameter_table()] if parameters else []
    answer(summary.title)
    for table in tables:
        answer("", *table)
    answer("", *(line for each in inventory.sentences() for line in wrap(each, 80)))


def _arch(model: str, changes: ModelRecipe | None) -> "tuple[Arch, int]":
    from resnetkit.networks.arch import VARIANTS, get_arch

    if model not in VARIANTS and (Path(model).exists() or "." in model or "/" in model):
        from resnetkit.weights.hints import Hints
        from resnetkit.weights.sources import read_source

        named = changes.name if changes is not None and "name" in changes.model_fields_set else None
        found = read_source(model, Hints(model=named))
        return found.arch, found.preprocess.size if found.preprocess else found.arch.native_size
    fields = changes.model_dump(exclude_unset=True, exclude={"name", "weights"}) if changes is not None else {}
    arch = get_arch(model, **fields)
    return arch, arch.native_size
