"""TensorBoard: event files in the run's folder, `tensorboard/`. Look at them with `tensorboard --logdir RUN`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """Scalars and the recipe; where a run goes on, what was written after its checkpoint is hidden."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        self.writer.add_text("recipe", f"```json\n{json.dumps(recipe, indent=1)}\n```")

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Each under its name."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """The last events are on the disk."""
        self.writer.close()
