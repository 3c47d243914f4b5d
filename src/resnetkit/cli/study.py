"""`resnetkit study`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.options import DataRoot, Json
from resnetkit.cli.printing import answer, answer_json


def study_command(
    name: Annotated[str, Parameter(name="NAME")],
    /,
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    seeds: int | None = None,
    data_root: DataRoot = None,
    json_output: Json = False,
) -> None:
    """Put a claim about residual networks to the test.

    resnetkit study degradation --quick     are deeper plain nets worse?
    resnetkit study gradients --quick       do their gradients vanish?
    resnetkit study lesion --quick          what if a block is taken out?

    Each writes results.csv, a figure and a page in plain words. A study that was stopped goes on with the rows that are
    missing. Without --quick it is the experiment of the paper: hours, on an accelerator.

    Parameters
    ----------
    name
        degradation, depth, gradients, lesion, responses, shortcuts, tutorials, unknown.
    quick
        Answer in minutes on two cores.
    out
        Folder of results, figure and page. Without it: studies/NAME, or studies/NAME-quick.
    seeds
        How many seeds. Without it: as many as the study needs.
    """
    from resnetkit.studies.laboratory import run_study

    outcome = run_study(name, quick=quick, out=out, data_root=data_root, seeds=seeds)
    if json_output:
        answer_json({"study": name, "quick": quick, "out": str(outcome.folder), "answer": outcome.answer})
    else:
        answer(*outcome.answer.split("\n"), "", f"The page: {outcome.folder / 'index.html'}")
