"""`resnetkit summary`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.keys import NetworkFlags
from resnetkit.cli.options import NETWORK_KEYS, Json
from resnetkit.cli.printing import answer_json, answer_table
from resnetkit.recipes.schema import ModelRecipe

if TYPE_CHECKING:
    from resnetkit.networks.arch import Arch


def summary_command(
    name: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    image_size: int | None = None,
    json_output: Json = False,
    changes: Annotated[
        NetworkFlags | None, Parameter(name="--model", group=NETWORK_KEYS, consume_multiple=True)
    ] = None,
) -> None:
    """Show a network stage by stage: shapes, parameters, multiply-adds.

    resnetkit summary resnet50
    resnetkit summary resnet18 --image-size 96
    resnetkit summary resnet34 --model.shortcut A
    resnetkit summary runs/NAME

    Parameters
    ----------
    name
        A name from `resnetkit list models`, a run's folder, or a model's.
    image_size
        Side of the input in pixels. Without it: what the model was made for.
    """
    from resnetkit.networks.summary import summarise

    arch, size = _arch(name, changes)
    summary = summarise(arch, size if image_size is None else image_size)
    if json_output:
        answer_json({"model": name} | summary.to_dict())
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        "stage",
        "output (C, H, W)",
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"{name}, input {arch.in_channels} x {_times(summary.image_size)}",
    )
    for heading in ("parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for stage in summary.stages:
        table.add_row(stage.name, _times(stage.output), f"{stage.parameters:,}", f"{stage.multiply_adds:,}")
    table.add_section()
    table.add_row(f"{arch.layers} layers", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    answer_table(table)


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


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))
