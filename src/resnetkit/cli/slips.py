"""What people type who know other tools, and slips of the pen: answered with the name that is meant.

Lists with commas between are taken apart here too, for cyclopts takes the values of a list one by one.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from resnetkit.errors import UsageError, clipped

if TYPE_CHECKING:
    from cyclopts import CycloptsError

STDIN = "\0-"
"""Stands for `-` until a command has it."""
COMMANDS = {
    "train": ("fit", "finetune", "fine-tune", "learn", "resume"),
    "evaluate": ("eval", "test", "val", "validate", "score", "benchmark"),
    "compare": ("diff", "versus", "mcnemar"),
    "sweep": ("tune", "grid", "search", "hpo", "gridsearch"),
    "predict": ("inference", "infer", "classify", "detect", "run"),
    "check": ("doctor", "verify", "lint"),
    "summary": ("info", "describe", "show", "inspect", "model"),
    "list": ("ls", "models", "zoo", "recipes", "weights"),
    "study": ("experiment", "lab"),
    "shard": ("pack", "webdataset"),
}
"""Our commands, with the names that other tools have for them."""

FLAGS = {
    "--optim.lr": ("learning-rate", "base-lr", "lr0", "max-lr"),
    "--optim.name": ("optimizer", "optimiser", "opt", "optim"),
    "--optim.weight-decay": ("wd",),
    "--optim.schedule": ("scheduler", "lr-scheduler", "lr-schedule", "sched"),
    "--data.batch-size": ("batch", "bs", "b", "train-batch-size", "per-device-train-batch-size"),
    "--batch-size": ("batch", "bs", "b"),
    "--data.workers": ("num-workers", "j", "threads"),
    "--workers": ("num-workers", "j", "threads"),
    "--data.image-size": ("size", "imgsz", "img-size", "imsize", "input-size", "resolution", "crop-size"),
    "--image-size": ("size", "imgsz", "img-size", "imsize", "input-size", "resolution"),
    "--size": ("imgsz", "img-size", "imsize", "input-size", "image-size", "resolution"),
    "--model": ("arch", "a", "architecture", "net", "network", "backbone", "variant"),
    "--weights": ("pretrained", "init", "initial-checkpoint", "ckpt"),
    "--device": ("gpu", "gpus", "cuda", "cpu", "accelerator"),
    "--precision": ("amp", "fp16", "half", "bf16", "dtype"),
    "--out": ("output", "output-dir", "out-dir", "save-dir", "workdir", "project", "name", "log-dir"),
    "--data": ("dataset", "data-path", "data-dir", "root", "source"),
    "--epochs": ("num-epochs", "num-train-epochs", "max-epochs", "ep"),
    "--json": ("format", "save-json"),
    "--top": ("topk", "top-k", "k"),
}
"""Our flags, with the names that other tools have for them; a command takes those that it has."""


def in_our_words(error: "CycloptsError", commands: Sequence[str]) -> UsageError | None:
    """A complaint of cyclopts in our words: what was typed, and what was meant; None for any other.

    `commands` are those that there are.
    """
    from cyclopts import MissingArgumentError, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

    command = " ".join(error.command_chain or ())
    remedy = " ".join(f"resnetkit {command} --help".split())
    if isinstance(error, UnknownCommandError):
        return _unknown_command((error.unused_tokens or [""])[0], commands)
    if isinstance(error, UnknownOptionError):
        names = [name for each in error.argument_collection if not each.children for name in each.names]
        return _unknown_flag(error.token.keyword or error.token.value, names, remedy)
    if isinstance(error, UnusedCliTokensError):
        left_over = clipped(" ".join((error.unused_tokens or [])[:5]))
        return UsageError(f"{command} can make nothing of {left_over}", why="it has all that it takes", remedy=remedy)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        given, name = error.keyword, error.argument.name
        for word in error.unused_tokens or ():
            if not given and word.startswith("--") and _meant(word, [name]):
                return _unknown_flag(word, [name], remedy)
        return UsageError(f"{given} has no value" if given else f"{command} needs {name}", remedy=remedy)
    return None


def _unknown_command(typed: str, commands: Sequence[str]) -> UsageError:
    names = {other: ours for ours, others in COMMANDS.items() if ours in commands for other in others}
    names |= {name: name for name in commands}
    near = difflib.get_close_matches(typed.lower(), names, n=1, cutoff=0.6)
    what = f"unknown command {clipped(typed)!r}"
    if near:
        meant = names[near[0]]
        return UsageError(f'{what}. Did you mean "{meant}"', remedy=f"resnetkit {meant} --help")
    return UsageError(what, why=f"known are {', '.join(commands)}", remedy="resnetkit --help")


def _unknown_flag(typed: str, ours: Sequence[str], remedy: str) -> UsageError:
    flag = typed.partition("=")[0]
    what, meant = f"unknown option {clipped(flag)}", _meant(flag, ours)
    if meant is None:
        return UsageError(what, remedy=remedy)
    return UsageError(f"{what}. Did you mean {meant}", remedy=remedy)


def _meant(flag: str, ours: Sequence[str]) -> str | None:
    """The flag that is meant: another tool's name for it, or its last part, or the one that looks like it most."""
    word = flag.lstrip("-").replace("_", "-").lower()
    for name, others in FLAGS.items():
        if name in ours and word in others:
            return name
    last = [name for name in ours if name.lstrip("-").rpartition(".")[2] == word]
    if last:
        return last[0]
    others = {other: name for name, all_others in FLAGS.items() if name in ours for other in all_others}
    for typed, names, cutoff in ((word, others, 0.85), (f"--{word}", ours, 0.6), (word, others, 0.7)):
        if near := difflib.get_close_matches(typed, names, n=1, cutoff=cutoff):
            return others.get(near[0], near[0])
    return None


def with_lists_apart(words: Iterable[str], lists: frozenset[str]) -> Iterator[str]:
    """The words, with the values of the flags in `lists` one by one: `1,1,1` and `[1, 1, 1]` become three words."""
    taking = False
    for word in words:
        flag, given, value = word.partition("=")
        if flag.startswith("--"):
            taking = flag in lists
            if taking and given:
                yield flag
                yield from _apart(value)
                continue
        yield from _apart(word) if taking and "," in word else (word,)


def _apart(value: str) -> list[str]:
    return [part for each in value.strip("[]() ").split(",") if (part := each.strip())]
