"""MLflow. Where it writes is said by its own variables: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and others."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from resnetkit.runs.folder import flat

LONGEST = 500
"""Characters of a parameter's value that every server of MLflow takes."""


class MLflow:
    """A run of MLflow with the name of the run's folder; a run that goes on is another one of the same name."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any], step: int) -> None:
        self.client = import_module("mlflow")
        tags = {"resnetkit.folder": str(folder), "resnetkit.step": str(step)}
        self.client.start_run(run_name=folder.name, tags=tags)
        self.client.log_params({name: str(value)[:LONGEST] for name, value in flat(recipe).items()})

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """One row."""
        self.client.log_metrics(dict(figures), step=step)

    def close(self) -> None:
        """The run is finished."""
        self.client.end_run()
