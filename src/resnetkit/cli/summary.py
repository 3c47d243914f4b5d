"""`resnetkit summary`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.keys import NetworkFlags
from resnetkit.cli.options import NETWORK_KEYS, Json
from resnetkit.cli.printing import answer, answer_json, answer_table
from resnetkit.errors import UsageError
from resnetkit.recipes.schema import ModelRecipe

if TYPE_CHECKING:
    from resnetkit.networks.arch import Arch

CONFIG = "config.json"


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
        A network, weights by name or file, a run's folder, or a model's.
    image_size
        Side of the input in pixels. Without it: what the model was made for.
    """
    from resnetkit.networks.arch import describe
    from resnetkit.networks.summary import summarise

    found = _find(name, changes)
    arch = found.arch
    summary = summarise(arch, found.size if image_size is None else image_size)
    if json_output:
        answer_json({"model": name} | summary.to_dict())
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        "stage",
        "output (C, H, W)",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for heading in ("parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for stage in summary.stages:
        table.add_row(stage.name, _times(stage.output), f"{stage.parameters:,}", f"{stage.multiply_adds:,}")
    table.add_section()
    table.add_row(f"{arch.layers} layers", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    called = describe(found.model, arch)
    where = f"{name}: {called}" if called != name and not called.startswith(f"{name} ") else called
    answer(f"{where}, input {arch.in_channels} x {_times(summary.image_size)}", "")
    answer_table(table)


@dataclass(frozen=True)
class _Found:
    """A network that was named: by a variant, or by weights or a folder that have one."""

    model: str
    arch: "Arch"
    size: int


def _find(name: str, changes: ModelRecipe | None) -> _Found:
    """The network of a name. What can be told without torch, and without a download, is."""
    from resnetkit.networks.arch import VARIANTS, get_arch
    from resnetkit.weights.table import OWN, WEIGHTS, weights_of

    fields = changes.model_dump(exclude_unset=True, exclude={"name"}) if changes is not None else {}
    if name in VARIANTS:
        arch = get_arch(name, **fields)
        return _Found(name, arch, arch.native_size)
    if fields:
        flag = f"--model.{next(iter(fields)).replace('_', '-')}"
        what = f"{flag} cannot change {name}"
        raise UsageError(what, why="only a network of our table is changed", remedy="resnetkit list models")
    if name in WEIGHTS:
        return _Found(WEIGHTS[name].model, get_arch(WEIGHTS[name].model), WEIGHTS[name].size)
    for config in (OWN.get(name, Path(name)) / CONFIG, Path(name) / "model" / CONFIG):
        if config.is_file() and (found := _of_ours(config)):
            return found
    if Path(name).exists() or "." in name or "/" in name:
        from resnetkit.weights.hints import Hints
        from resnetkit.weights.sources import read_source

        source = read_source(name, Hints(model=changes.name if changes is not None else None))
        size = source.preprocess.size if source.preprocess else source.arch.native_size
        return _Found(source.model, source.arch, size)
    if known := weights_of(name):
        raise UsageError(f"{name} is no network of our table", why="weights are called so", remedy=" or ".join(known))
    arch = get_arch(name)  # which says what is near
    return _Found(name, arch, arch.native_size)


def _of_ours(config: Path) -> _Found | None:
    """What the settings of one of our models say, where they are whole; whoever loads it says what is wrong."""
    from resnetkit.machine.documents import read_json
    from resnetkit.networks.arch import Arch

    try:
        settings = read_json(config)
        ours = settings["resnetkit"]
        return _Found(str(settings["architecture"]), Arch(**ours["arch"]), int(ours["preprocess"]["size"]))
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return None


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))
