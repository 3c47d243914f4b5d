"""The steps of a run before any is taken: how many, and which images each sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from resnetkit.data.batches import Batch, training_batches
from resnetkit.data.order import Order, order_of
from resnetkit.data.splits import Split
from resnetkit.errors import UsageError
from resnetkit.images.augment import Augment
from resnetkit.machine.device import Compute
from resnetkit.training.optim import Schedule
from resnetkit.training.setup import Setup


@dataclass(frozen=True)
class Plan:
    """A run as a function of the step: nothing here is remembered from one step to the next."""

    split: Split
    order: Order
    augment: Augment
    schedule: Schedule
    compute: Compute
    total_steps: int
    workers: int | None

    @cached_property
    def batch_size(self) -> int:
        """Images of a step, over all ranks."""
        return self.order.batch_size

    def batches(self, start: int) -> Iterator[Batch]:
        """This rank's part of every step from `start` to the last."""
        return training_batches(
            self.split, self.order, self.augment, self.compute, start=start, stop=self.total_steps, workers=self.workers
        )

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch is over, or the run, once `step` steps are behind us."""
        return step == self.total_steps or self.order.ends_epoch(step)

    def epochs(self, step: int) -> float:
        """How often each image has been seen once `step` steps are behind us."""
        return step * self.batch_size / self.order.count

    def epochs_text(self, step: int | None = None) -> str:
        """The same for people, of the whole run where no step is given: a whole number where an epoch ends."""
        step = self.total_steps if step is None else step
        epochs = self.epochs(step)
        return f"{epochs:.0f}" if self.order.ends_epoch(step) else f"{epochs:.2f}"


def make_plan(setup: Setup) -> Plan:
    """The plan of a run. Raises `UsageError` (exit code 2) where a rank's part of a batch would be one image."""
    recipe, split = setup.recipe, setup.train_split
    balanced = recipe.data.sampling == "balanced"
    order = order_of(split, recipe.data.batch_size, recipe.seed, setup.ranks, balanced=balanced)
    if order.batch_size < 2 * setup.ranks.size:
        raise UsageError(
            f"a batch of {order.batch_size} images for {setup.ranks.size} ranks",
            why="BatchNorm needs two images at a time",
            remedy=f"--data.batch-size {2 * setup.ranks.size} or more, and as many images",
        )
    total_steps = recipe.total_steps(len(split))
    augment = Augment(
        recipe.augment,
        setup.preprocess,
        num_classes=len(setup.data.classes),
        seed=recipe.seed,
        transform=setup.hooks.transform,
    )
    schedule = Schedule(recipe.optim, total_steps, len(split), order.batch_size)
    return Plan(split, order, augment, schedule, setup.compute, total_steps, recipe.data.workers)
