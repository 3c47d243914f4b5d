"""`resnetkit verify-resume`."""

from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Json
from resnetkit.cli.printing import answer, answer_json


def verify_resume_command(
    recipe: str = "digits",
    /,
    *,
    data: str | None = None,
    plugin: Annotated[str | None, Parameter(help="As in train: the network, loss and so on of your own.")] = None,
    limit: Annotated[int, Parameter(help="Images to train on.")] = 400,
    json_output: Json = False,
) -> int:
    """Prove on this machine that a killed run goes on exactly.

    resnetkit verify-resume
    resnetkit verify-resume finetune --data photos/

    Trains a dozen steps in a process, again in one that it kills with SIGKILL on the way, lets that one go on, and
    compares network, optimizer, average and journal bit by bit. Takes about half a minute.

    Parameters
    ----------
    recipe
        A name from `resnetkit list recipes`, or a TOML file.
    data
        A named set or a folder of images instead of the recipe's own.
    """
    from dataclasses import asdict

    from resnetkit.runs.verification import verify_resume

    verdict = verify_resume(recipe, data=data, limit=limit, plugin=plugin)
    exact = not verdict.differences
    if json_output:
        answer_json({"exact": exact} | asdict(verdict))
    elif exact:
        answer(
            f"exact: killed and resumed from step {verdict.resumed_from}, the run ended with the same journal and the "
            f"same {verdict.tensors} tensors, to the bit ({verdict.seconds:.0f} s)"
        )
    else:
        answer(f"not exact: {', '.join(verdict.differences[:5])} and so on, {len(verdict.differences)} in all")
    return 0 if exact else 1
