"""`resnetkit push`."""

from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.options import Json, Model, importing
from resnetkit.cli.printing import answer, answer_json


def push_command(
    source: Model,
    repository: Annotated[str, Parameter(name="HUB_ID")],
    /,
    *,
    private: Annotated[bool, Parameter(negative="")] = False,
    licence: str = "apache-2.0",
    json_output: Json = False,
) -> None:
    """Put a trained model on the Hugging Face hub.

    HF_TOKEN=hf_… resnetkit push runs/NAME ada/birds
    resnetkit push runs/NAME ada/birds --private
    resnetkit predict ada/birds cat.jpg              from any machine, from then on

    What goes there: weights, classes, preprocessing and recipe, with a card that says what was measured. No pictures.
    It needs an account on the hub, and a token that may write: in HF_TOKEN, or by `hf auth login`.

    Parameters
    ----------
    repository
        USER/NAME, or ORGANISATION/NAME; it is made where there is none.
    private
        Only you, or your organisation, may see it.
    licence
        What others may do with it, as the hub abbreviates it.
    """
    with importing():
        from resnetkit.weights.hub import push
        from resnetkit.weights.load import load

    address = push(load(source, device="cpu", precision="fp32"), repository, private=private, licence=licence)
    if json_output:
        answer_json({"model": source, "hub": repository, "address": address, "private": private})
    else:
        answer(address, "Next:", f"  resnetkit predict {repository} PICTURE…   from any machine")
