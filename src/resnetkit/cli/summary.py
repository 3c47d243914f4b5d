"""`resnetkit summary`."""

from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.keys import NetworkFlags
from resnetkit.cli.options import NETWORK_KEYS, Json
from resnetkit.cli.printing import answer, answer_json
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
    modules: Annotated[bool, Parameter(negative="")] = False,
    parameters: Annotated[bool, Parameter(negative="")] = False,
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
    resnetkit summary resnet18 --modules

    Parameters
    ----------
    name
        A network, weights by name or file, a run's folder, or a model's.
    image_size
        Side of the input in pixels. Without it: what the model was made for.
    modules
        Every module instead: its name, type, output and parameters, its parts' included.
    parameters
        Every parameter instead: its name, shape and size.
    """
    from resnetkit.networks.arch import describe
    from resnetkit.networks.summary import summarise

    found = _find(name, changes)
    arch, called = found.arch, describe(found.model, found.arch)
    where = called if called == name or called.startswith(f"{name} ") else f"{name}: {called}"
    summary = replace(summarise(arch, found.size if image_size is None else image_size), name=where)
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
