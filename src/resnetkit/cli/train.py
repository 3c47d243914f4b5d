"""`resnetkit train`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from resnetkit.cli.options import RECIPE_KEYS, DataRoot, Json, Strict, importing
from resnetkit.cli.plugin import load_plugin
from resnetkit.cli.printing import answer, answer_json
from resnetkit.machine.torchrun import place
from resnetkit.recipes.schema import Recipe


def train_command(
    data: str | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    allow_change: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    accept_data_change: Annotated[bool, Parameter(negative="")] = False,
    plugin: str | None = None,
    log: Annotated[list[str] | None, Parameter(negative="")] = None,
    data_root: DataRoot = None,
    json_output: Json = False,
    strict: Strict = False,
    changes: Annotated[Recipe | None, Parameter(name="*", group=RECIPE_KEYS, consume_multiple=True)] = None,
) -> int:
    """Train a network on a named set or on a folder of images.

    resnetkit train                       the embedded digits: a minute, no download
    resnetkit train fashion-mnist         a named set, with the recipe of its name
    resnetkit train photos/               one folder a class, or train/ and val/ of them
    resnetkit train photos/ --weights resnet18.imagenet1k_v1
    resnetkit train 'shards/train-{000..099}.tar'    sets too large for a folder
    resnetkit train --resume --out DIR    go on with a run

    The best weights are chosen on a validation split; the test split is scored once, at the end.

    Parameters
    ----------
    data
        digits, fashion-mnist, cifar10, cifar100, a folder of images, or shards [default: digits].
    recipe
        A name from `resnetkit list recipes`, or a TOML file. Without it: the one that fits the data.
    model
        A name from `resnetkit list models`; short for --model.name.
    weights
        Start from these instead of from nothing: a name from `resnetkit list weights`, a file, a folder, a hub id.
    out
        Folder of the run. Without it: runs/DATA-TIME.
    resume
        Go on with the run in --out, exactly, from its last checkpoint; where there is none yet, begin.
    allow_change
        With --resume: recipe keys that may differ from those that the run was begun with, such as optim.lr.
    accept_data_change
        With --resume: go on although the images are others.
    plugin
        A Python file, or module, with any of network, loss, transform, optimizer, callbacks.
    log
        tensorboard, wandb or mlflow; may be repeated. One that fails ends nothing.
    """
    with importing():
        from resnetkit.training.train import train

    settings: dict[str, Any] = changes.model_dump(exclude_unset=True) if changes is not None else {}
    if weights is not None:
        settings["model"] = {**settings.get("model", {}), "weights": weights}
    if model is not None:
        settings["model"] = {**settings.get("model", {}), "name": model}
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
        **settings,
    )
    if not place().first:
        return 0  # the first rank speaks for all
    figures, folder = classifier.metrics, classifier.folder
    run = folder.parent if folder is not None else Path()
    if json_output:
        keys = ("split", "count", "top1", "top5", "loss", "steps", "best_step", "seconds", "images_per_second")
        report = {"run": str(run), "model": classifier.model, "data": classifier.origin.data}
        extra = {key: figures[key] for key in ("cross_validation", "frozen_drift") if key in figures}
        answer_json(report | {key: figures[key] for key in keys} | {"unreadable": figures["unreadable"]} | extra)
    else:
        answer(f"{figures['split']} top-1 {figures['top1']:.2f} % of {figures['count']:,} images, model in {folder}")
        hints = {
            f"resnetkit predict {run} PICTURE…": "what is on a picture",
            f"resnetkit summary {run}": "the network, stage by stage",
        }
        if not classifier.ours:
            hints = {f'rk.load("{run}", network=…)': "in Python: your network, with its best weights"}
        elif classifier.origin.data == "digits":
            hints["resnetkit train photos/"] = "your own pictures, one folder for each class"
        width = max(map(len, hints))
        answer("Next:", *(f"  {hint:{width}}  {what}" for hint, what in hints.items()))
    return 9 if strict and figures["unreadable"] else 0
