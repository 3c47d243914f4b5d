"""`resnetkit shard`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.options import HowLabelled, Json, Strict
from resnetkit.cli.printing import answer, answer_json, aside
from resnetkit.machine.console import counted


def shard_command(
    folder: Annotated[Path, Parameter(name="FOLDER")],
    /,
    *,
    out: Path,
    megabytes: float = 256.0,
    validation: float = 0.1,
    seed: int = 0,
    labelling: HowLabelled = None,
    json_output: Json = False,
    strict: Strict = False,
) -> int:
    """Write a folder of images as WebDataset shards: few large files instead of many small ones.

    resnetkit shard photos/ --out shards/
    resnetkit train shards/

    The pictures keep their bytes, are mixed across classes, and go into train-000000.tar, val-….tar and test-….tar,
    split as training on the folder would split them. Those that cannot be read are left out and named. dataset.json
    says the classes, and the SHA-256 of each shard. After an interruption the same command goes on. No file of yours is
    changed.

    Parameters
    ----------
    folder
        A folder of class folders, or of train/, val/ and test/ with class folders in them; a table; a zip or tar.
    out
        Folder of the shards.
    megabytes
        Size at which a shard is closed.
    validation
        Share held out where the folder has no val/, as training holds it out.
    seed
        Of the order in which pictures are mixed.
    """
    from resnetkit.data.shards.write import shard
    from resnetkit.machine.console import Reporter

    with Reporter().progress(None, 0, unit="images") as progress:
        description = shard(
            folder,
            out,
            megabytes=megabytes,
            validation=validation,
            seed=seed,
            labelling=labelling,
            progress=progress,
        )
    left_out: dict[str, str] = description["left_out"]
    for file, why in left_out.items():
        aside(f"left out: {file}: {why}")
    splits = {
        name: {"shards": len(parts)} | {key: sum(part[key] for part in parts) for key in ("samples", "bytes")}
        for name, parts in description["splits"].items()
    }
    if json_output:
        answer_json({"out": str(out), "classes": description["classes"], "splits": splits, "left_out": left_out})
    else:
        for name, sums in splits.items():
            answer(f"{name}: {sums['samples']:,} images in {sums['shards']:,} shards, {sums['bytes'] / 1e6:,.1f} MB")
        if left_out:
            answer(f"{counted(len(left_out), 'image')} could not be read: not in the shards.")
        answer("Next:", f"  resnetkit train {out}")
    return 9 if strict and left_out else 0
