"""Keys that change nothing beside others: who asks for one of them is told what it needs."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from resnetkit.errors import UsageError
from resnetkit.networks.arch import Arch, get_arch
from resnetkit.recipes.schema import LENGTHS, AugmentRecipe, CheckpointRecipe, OptimRecipe, Recipe


@dataclass(frozen=True)
class Need:
    """Keys that have an effect under one condition only, and how that is written as a flag."""

    keys: tuple[str, ...]
    met: Callable[[Recipe], bool]
    flag: str


def _arch(recipe: Recipe) -> Arch:
    return get_arch(recipe.model.name, **recipe.model.model_dump(exclude={"name", "weights"}, exclude_none=True))


OF_STEPS = (
    *LENGTHS,
    *(f"augment.{key}" for key in AugmentRecipe.model_fields),
    *(f"optim.{key}" for key in OptimRecipe.model_fields),
    *(f"checkpoint.{key}" for key in CheckpointRecipe.model_fields),
    *("min_steps", "max_steps", "data.sampling", "data.micro_batch"),
)
"""Keys of training step by step."""
NEEDS = (
    Need(OF_STEPS, lambda recipe: recipe.transfer.mode != "head", "--transfer.mode finetune"),
    Need(("optim.momentum", "optim.nesterov"), lambda recipe: recipe.optim.name == "sgd", "--optim.name sgd"),
    Need(("optim.milestones", "optim.gamma"), lambda r: r.optim.schedule == "steps", "--optim.schedule steps"),
    Need(
        ("optim.warmup_shape", "optim.warmup_factor"),
        lambda recipe: any(digit in recipe.optim.warmup for digit in "123456789"),
        "--optim.warmup 10%",
    ),
    Need(("optim.decay_all",), lambda recipe: recipe.optim.weight_decay > 0, "--optim.weight-decay 1e-4"),
    Need(("min_steps", "max_steps"), lambda recipe: recipe.steps is None, "--epochs 5, for --steps is a length itself"),
    Need(("augment.crop_scale",), lambda r: r.augment.random_resized_crop, "--augment.random-resized-crop"),
    Need(
        ("transfer.mirror", "transfer.crops", "transfer.folds"),
        lambda recipe: recipe.transfer.mode != "none",
        "--transfer.mode head",
    ),
    Need(("data.mean",), lambda recipe: recipe.data.std is not None, "--data.std as well"),
    Need(("data.std",), lambda recipe: recipe.data.mean is not None, "--data.mean as well"),
    Need(("model.stride_on",), lambda recipe: _arch(recipe).block == "bottleneck", "--model.block bottleneck"),
    Need(("model.shortcut", "model.projection_norm"), lambda recipe: _arch(recipe).residual, "--model.residual"),
    Need(("model.projection_norm",), lambda recipe: _arch(recipe).shortcut != "A", "--model.shortcut B"),
)


def without_effect(recipe: Recipe, asked: Collection[str]) -> Iterator[tuple[str, str]]:
    """Of the keys that were asked for, those that change nothing in `recipe`, each with the flag that it needs."""
    for need in NEEDS:
        for key in need.keys:
            if key in asked and not need.met(recipe):
                yield key, need.flag


def refuse_idle(recipe: Recipe, asked: Collection[str]) -> None:
    """Raise `UsageError` (exit code 2) for the first key of those asked for that would change nothing."""
    for key, flag in without_effect(recipe, asked):
        name = f"--{key.replace('_', '-')}"
        raise UsageError(f"{name} would change nothing here", why=f"it needs {flag}", remedy="that, or leave it out")
