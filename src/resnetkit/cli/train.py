"""`resnetkit train`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from resnetkit.cli.keys import RecipeFlags
from resnetkit.cli.options import RECIPE_KEYS, SELDOM, DataRoot, Json, Strict, importing
from resnetkit.cli.plugin import load_plugin
from resnetkit.cli.printing import answer, answer_json
from resnetkit.errors import UsageError
from resnetkit.machine.torchrun import place
from resnetkit.recipes.effects import refuse_idle
from resnetkit.recipes.schema import Recipe


def _settings(
    data: str | None, model: str | None, weights: str | None, which: str | None, changes: Recipe | None
) -> dict[str, Any]:
    """What the flags change in a recipe, by section. Raises `UsageError` (exit code 2) for two that disagree."""
    settings: dict[str, Any] = changes.model_dump(exclude_unset=True) if changes is not None else {}
    for flag, (section, key), value in (
        ("DATA", ("data", "name"), data),
        ("--model", ("model", "name"), model),
        ("--weights", ("model", "weights"), weights),
        ("--which", ("transfer", "which"), which),
    ):
        given = settings.get(section, {})
        if value is not None and given.get(key, value) != value:
            raise UsageError(f"{flag} {value} and --{section}.{key} {given[key]} are two", remedy="one of them")
        if value is not None and section != "data":
            settings[section] = {**given, key: value}
    return settings


def recipe_of(
    data: str | None,
    recipe: str | None,
    model: str | None,
    weights: str | None,
    which: str | None,
    changes: Recipe | None,
    old: Path | None = None,
) -> Recipe:
    """The recipe that a run with these flags follows, where it goes on with the `old` one.

    Raises `UsageError` (exit code 2) for one that cannot be, and for a flag that would change nothing in it.
    """
    from resnetkit.runs.choice import choose_recipe

    settings = _settings(data, model, weights, which, changes)
    chosen = choose_recipe(data, recipe, settings, old)
    sections = {key: section for key, section in settings.items() if isinstance(section, dict)}
    asked = {f"{section}.{key}" for section, keys in sections.items() for key in keys}
    refuse_idle(chosen, asked | (settings.keys() - sections.keys()))
    return chosen


def train_command(
    data: str | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    which: Annotated[Literal["raw", "ema"] | None, Parameter(group=SELDOM)] = None,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    allow_change: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True, group=SELDOM)] = None,
    accept_data_change: Annotated[bool, Parameter(negative="", group=SELDOM)] = False,
    plugin: Annotated[str | None, Parameter(group=SELDOM)] = None,
    log: Annotated[list[str] | None, Parameter(negative="", group=SELDOM)] = None,
    data_root: DataRoot = None,
    json_output: Json = False,
    strict: Annotated[Strict, Parameter(group=SELDOM)] = False,
    changes: Annotated[RecipeFlags | None, Parameter(name="*", group=RECIPE_KEYS, consume_multiple=True)] = None,
) -> int:
    """Train a network on a named set or on a folder of images.

    resnetkit train                       the embedded digits: a minute, no download
    resnetkit train fashion-mnist         a named set, with the recipe of its name
    resnetkit train photos/               a folder for each class, or of splits
    resnetkit train labels.csv            a table of paths and labels, or a zip
    resnetkit train photos/ --weights resnet18.imagenet1k_v1
    resnetkit train 'shards/train-{000..099}.tar'    too large for a folder
    resnetkit train --resume --out DIR    go on with a run

    The best weights are chosen on a validation split; the test split is scored once, at the end.
    --json has both: tune by `validation`, the figures of the weights that are kept, and report the others.

    Parameters
    ----------
    data
        digits, fashion-mnist, cifar10, cifar100, a folder, a table, an archive, or shards. [default: digits]
    recipe
        A name from `resnetkit list recipes`, or a TOML file. Without it: the one that fits the data.
    model
        A name from `resnetkit list models`; short for --model.name. auto, or a list with commas of names, weights and
        folders: the best of these backbones on your pictures.
    weights
        Start from these instead of from nothing: a name from `resnetkit list weights`, a file, a folder, a hub id.
    which
        Of weights that hold a network and its average, which one; short for --transfer.which [default: the average].
    out
        Folder of the run. Without it: runs/DATA-TIME.
    resume
        Go on with the run in --out, exactly, or begin it.
    allow_change
        With --resume: recipe keys that may differ from those that the run was begun with, such as optim.lr.
    accept_data_change
        With --resume: go on although the images are others.
    plugin
        A Python file, or module, with any of network, loss, transform, optimizer, callbacks.
    log
        tensorboard, wandb or mlflow; may be repeated. One that fails ends nothing.
    """
    if not resume and (allow_change or accept_data_change):
        flag = "--allow-change" if allow_change else "--accept-data-change"
        raise UsageError(f"{flag} would change nothing here", why="it needs --resume", remedy="that, or leave it out")
    old = out / "recipe.toml" if resume and out is not None and (out / "recipe.toml").is_file() else None
    recipe_of(data, recipe, model, weights, which, changes, old)
    with importing():
        from resnetkit.machine.console import Reporter
        from resnetkit.training.progress import result_lines
        from resnetkit.training.train import train

    classifier = train(
        data,
        recipe,
        **(load_plugin(plugin) if plugin is not None else {}),
        log=log or (),
        out=out,
        resume=resume,
        allow_change=allow_change or (),
        accept_data_change=accept_data_change,
        data_root=data_root,
        reporter=Reporter(tells_result=False),
        **_settings(data, model, weights, which, changes),
    )
    if not place().first:
        return 0  # the first rank speaks for all
    figures, folder = classifier.metrics, classifier.folder
    run = folder.parent if folder is not None else Path()
    if json_output:
        keys = ("split", "count", "top1", "top5", "loss", "steps", "best_step", "seconds", "images_per_second")
        report = {"run": str(run), "model": classifier.model, "data": classifier.origin.data}
        more = ("best_epoch", "validation", "cross_validation", "frozen_drift", "published", "backbones")
        extra = {key: figures[key] for key in more if key in figures}
        answer_json(report | {key: figures[key] for key in keys} | {"unreadable": figures["unreadable"]} | extra)
    else:
        hints = {
            f"resnetkit predict {run} PICTURE": "what is on a picture",
            f"resnetkit summary {run}": "the network, stage by stage",
        }
        if not classifier.ours:
            hints = {f'rk.load("{run}", network=…)': "in Python: your network, with its best weights"}
        elif classifier.origin.data == "digits":
            hints["resnetkit train photos/"] = "your own pictures, a folder for each class"
        answer(*result_lines(figures, folder), "Next:", *_side_by_side(hints))
    return 9 if strict and figures["unreadable"] else 0


def _side_by_side(hints: dict[str, str]) -> list[str]:
    """Commands and what they do; one below the other where they do not fit beside each other."""
    width = max(map(len, hints))
    lines = [f"  {hint:{width}}  {what}" for hint, what in hints.items()]
    if max(map(len, lines)) <= 80:
        return lines
    return [line for hint, what in hints.items() for line in (f"  {hint}", f"      {what}")]
