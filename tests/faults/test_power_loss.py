"""T3: whatever a power cut leaves of two saves, the older or the newer checkpoint is there, whole."""

import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from faults import plants
from faults.harness import run
from faults.powercut import Disk, build
from faults.runs import begin
from resnetkit.artefact import load_classifier
from resnetkit.recipes.load import load_recipe
from resnetkit.runs import checkpoint
from resnetkit.runs.folder import Run
from resnetkit.runs.journal import Journal


@pytest.fixture(scope="module")
def calls(home: Path) -> list[tuple]:
    """The file-system calls of a run of five steps that saves at 0, 2, 4 and 5, and keeps one."""
    settings = begin("memory", home, home / "run", epochs=1, checkpoint={"every_steps": 2, "keep": 1})
    assert run(direct=settings, plant=partial(plants.log_calls, home / "run", home / "log")).code == 0
    return pickle.loads((home / "log").read_bytes())


def test_every_state_after_a_power_cut_gives_the_older_or_the_newer_checkpoint(calls: list, home: Path) -> None:
    root = os.path.dirname(calls[0][1]) if os.path.basename(calls[0][1]).startswith(".") else calls[0][1]
    disk, folder, built = Disk(root), home / "states", set()
    durable, known = -1, {}
    recipe, settings, ended = Path(root, "recipe.toml").read_bytes(), load_recipe(Path(root, "recipe.toml")), 0
    for number, call in enumerate(calls):
        disk.do(*call)
        name, path, arguments, _ = call
        if name == "fsync" and path == f"{root}/checkpoints":
            durable = max([durable, *(int(each[5:]) for each in disk._find(path).now() if each.startswith("step-"))])
        for state in disk.states():
            if (durable, frozenset(state.items())) in built:
                continue
            built.add((durable, frozenset(state.items())))
            build(state, folder)
            where = f"after call {number} ({name} {os.path.relpath(path, root)} {arguments[:1]!r:.60})"
            found, _ = checkpoint.newest(folder / "checkpoints")
            reached = found.step if found is not None else -1
            assert reached >= durable, f"{where}: step {durable} was there, and {reached} is found"
            if found is not None:
                # Never a mix: what a step holds is always the same, and the journal that it counts is there.
                known.setdefault(reached, found.tensors)
                for group, tensors in found.tensors.items():
                    assert all(torch.equal(value, known[reached][group][key]) for key, value in tensors.items()), where
                assert Journal(folder / "metrics.jsonl").size() >= found.state["journal_bytes"], where
                assert (folder / "recipe.toml").read_bytes() == recipe, where
            if (folder / "recipe.toml").is_file() and Run(folder, settings).finished:
                load_classifier(folder)
                ended += 1
            shutil.rmtree(folder)
    assert durable == 5
    assert set(known) == {0, 2, 4, 5}
    assert len(built) > 200
    assert ended
    print(f"{len(calls)} calls, {len(built)} different states")
