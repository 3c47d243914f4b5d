"""How often the test split of a run was opened, and by what: one line for each time, beside the run's journal.

Not in the journal: that is cut back where a run goes on, and what was looked at stays looked at.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resnetkit.classifier import Classifier
from resnetkit.evaluation.chosen import own_data
from resnetkit.machine.storage import append_file

FILE = "test_opened.jsonl"
"""Its name in a run's folder."""
LANDMARKS = ("recipe.toml", "metrics.jsonl")
"""What the folder of a run holds; a model that was saved elsewhere lies beside anything."""

logger = logging.getLogger("resnetkit")


def own_test(classifier: Classifier, data: str, split: str) -> bool:
    """Whether `split` of a set or path is the test split of what its run was given; also by the path of that split."""
    folder = classifier.origin.settings.get("test_folder") or "test"
    of_set = Path(data).parent if Path(data).name == folder else data
    return split == "test" and (own_data(classifier, data) or own_data(classifier, str(of_set)))


def openings(classifier: Classifier) -> list[str]:
    """By what the test split of its run was opened so far, in order; of a run of a former version, its training."""
    run = _run_of(classifier)
    by = _recorded(run) if run is not None else []
    return by or (["train"] if classifier.metrics.get("split") == "test" else [])


def _recorded(run: Path) -> list[str]:
    by: list[str] = []
    with suppress(OSError):
        for line in (run / FILE).read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                by.append(str(json.loads(line)["by"]))
    return by


def record(run: Path, by: str) -> None:
    """Add a line to a run's folder. Where nothing can be written, the figures are worth more than the line."""
    row = {"event": "test opened", "by": by, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        append_file(run / FILE, (json.dumps(row) + "\n").encode())
    except OSError as error:
        logger.info("cannot note in %s that the test split was opened: %s", run, error.strerror or error)


def count_opening(classifier: Classifier, by: str) -> dict[str, Any]:
    """Count that the test split of its run is opened, and say so where it was before.

    Gives for JSON the `times` with this one, and `by` what, with a number for each.
    """
    before = openings(classifier)
    if before:
        logger.info(
            "the test split was opened %s before (%s): what is chosen by it is no test any more",
            "once" if len(before) == 1 else f"{len(before):,} times",
            _listed(before),
        )
    run = _run_of(classifier)
    if run is not None:
        for each in [*before[len(_recorded(run)) :], by]:
            record(run, each)
    return {"times": len(before) + 1, "by": dict(Counter([*before, by]))}


def _listed(by: Sequence[str]) -> str:
    return ", ".join(name if count == 1 else f"{count:,} x {name}" for name, count in Counter(by).items())


def _run_of(classifier: Classifier) -> Path | None:
    """The run's folder; nothing for weights from elsewhere, and for a model that was saved by itself."""
    if classifier.folder is None:
        return None
    run = classifier.folder.parent
    return run if all((run / name).is_file() for name in LANDMARKS) else None
