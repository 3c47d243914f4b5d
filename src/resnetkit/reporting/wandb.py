"""Weights & Biases. Where and whether it sends anything is said by its own variables: WANDB_MODE=offline and others."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4


class WeightsAndBiases:
    """A run of W&B with the name of the run's folder; where ours goes on, so does theirs."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], _step: int) -> None:
        known = folder / "wandb-id.txt"
        if not known.is_file():
            known.write_text(uuid4().hex[:8])
        self.run = import_module("wandb").init(
            project="resnetkit",
            name=folder.name,
            dir=str(folder),
            config=dict(recipe),
            id=known.read_text().strip(),
            resume="allow",
        )

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """One row."""
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        """Everything is sent, or on the disk where W&B is offline."""
        self.run.finish()
