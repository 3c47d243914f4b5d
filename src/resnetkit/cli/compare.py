"""`resnetkit compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from resnetkit.cli.options import DataRoot, Device, HowLabelled, Json, Precision, Strict, Workers, importing
from resnetkit.cli.printing import answer, answer_json, answer_table, aside
from resnetkit.errors import UsageError
from resnetkit.recipes.ranges import require

if TYPE_CHECKING:
    from resnetkit.evaluation.compare import Comparison


def compare_command(
    *sources: Annotated[str, Parameter(name="MODELS-DATA")],
    labelling: HowLabelled = None,
    data_root: DataRoot = None,
    batch_size: int = 256,
    include_seen: Annotated[bool, Parameter(negative="")] = False,
    show: int = 10,
    out: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Json = False,
    strict: Strict = False,
) -> int:
    """Say whether one model is better than another, as far as the same images can tell.

    resnetkit compare runs/A runs/B fashion-mnist
    resnetkit compare runs/A runs/B runs/C photos/test --out differ.csv

    McNemar's exact test between each two, with a 95 % interval of the difference. Pictures that any of them has learnt
    from are left out.

    Parameters
    ----------
    sources
        Two models or more, then the data: a named set, or a folder, table, archive or shards of images.
    batch_size
        Images at a time; for speed only.
    include_seen
        Count pictures that one of them has learnt from, or was chosen by, too; they are left out otherwise.
    show
        Of the images on which they differ, so many are listed.
    out
        FILE.csv for all images on which they differ; or a folder, which gets differ.csv and comparison.json.
    overwrite
        Replace what is there.
    """
    require(batch_size=batch_size, workers=workers, show=show)
    if len(sources) < 3:
        raise UsageError(
            "compare needs two models and data",
            why="they stand one after the other",
            remedy="resnetkit compare A B DATA",
        )
    *models, data = sources
    if len(set(models)) < len(models):
        raise UsageError(f"{models[0]} is named twice" if len(models) == 2 else "a model is named twice", remedy="once")
    if out is not None:
        _refuse_occupied(out, overwrite=overwrite)
    with importing():
        from resnetkit.evaluation.compare import compare
        from resnetkit.machine.console import Reporter
        from resnetkit.weights.load import load

    classifiers = [load(source, device=device, precision=precision) for source in models]
    found = compare(
        classifiers,
        data,
        names=models,
        data_root=data_root,
        batch_size=batch_size,
        workers=workers,
        include_seen=include_seen,
        labelling=labelling,
        reporter=Reporter(),
    )
    for file, why in found.unreadable.items():
        aside(f"left out: {file}: {why}")
    if out is not None:
        _write(found, out)
    if json_output:
        answer_json(found.to_dict(show))
    else:
        _tell(found, show)
        if out is not None:
            answer(f"all {len(found.images):,} in {_places(out)[0]}")
    return 9 if strict and found.unreadable else 0


def _tell(found: "Comparison", show: int) -> None:
    count = found.figures[0]["count"]
    letters = [chr(ord("A") + place) if place < 26 else str(place) for place in range(len(found.names))]
    answer(f"{found.data}, {found.split}: {count:,} images", "")
    for letter, name, of in zip(letters, found.names, found.figures, strict=True):
        answer(
            f"{letter}  {name}",
            f"   top-1 {of['top1']:.2f} % ({of['low']:.1f} to {of['high']:.1f}), loss {of['loss']:.4f}",
        )
    letter_of = dict(zip(found.names, letters, strict=True))
    for pair in found.pairs:
        first, second = letter_of[pair.first], letter_of[pair.second]
        answer("", pair.verdict(first, second))
        if pair.same_weights and not pair.differ:
            continue
        answer(
            f"   right: both on {pair.both:,}, {first} alone on {pair.only_first:,}, "
            f"{second} alone on {pair.only_second:,}, none on {pair.neither:,}"
        )
        if (remedy := pair.remedy()) is not None:
            answer(f"   {remedy}")
    if found.seen:
        answer("", f"{found.seen:,} more were seen in training by one of them and are not counted.")
    if found.unreadable:
        answer(f"{len(found.unreadable)} images could not be read and are not counted.")
    if found.images and show:
        more = f"; here {show}, the surest mistakes first" if len(found.images) > show else ""
        answer("", f"They differ on {len(found.images):,} images{more}:")
        _list(found, letters, show)


def _list(found: "Comparison", letters: list[str], show: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("image", "is", *letters):
        table.add_column(heading, overflow="fold")
    for image in found.images[:show]:
        said = zip(image.answers, image.probabilities, strict=True)
        table.add_row(image.file, image.label, *(f"{label} {100 * share:.0f} %" for label, share in said))
    answer_table(table)


def _places(out: Path) -> tuple[Path, Path | None]:
    """The files of the images and of the figures."""
    return (out, None) if out.suffix == ".csv" else (out / "differ.csv", out / "comparison.json")


def _refuse_occupied(out: Path, *, overwrite: bool) -> None:
    if out.suffix != ".csv" and out.exists() and not out.is_dir():
        raise UsageError("the output folder cannot be made", file=out, why="it is a file", remedy="another --out")
    for file in filter(None, _places(out)):
        if file.exists() and not overwrite:
            raise UsageError("the file exists", file=file, remedy="another --out, or --overwrite")


def _write(found: "Comparison", out: Path) -> None:
    """Raises `StorageError` (exit code 7)."""
    import json

    from resnetkit.machine.storage import replace_file

    images, figures = _places(out)
    replace_file(images, _csv(found))
    if figures is not None:
        text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
        replace_file(figures, text.encode(errors="backslashreplace"))


def _csv(found: "Comparison") -> bytes:
    from resnetkit.machine.csvfile import csv_line

    lines = [["file", "label", *(f"{kind} {name}" for name in found.names for kind in ("answer", "probability"))]]
    for image in found.images:
        pairs = zip(image.answers, image.probabilities, strict=True)
        lines.append([image.file, image.label, *(cell for label, share in pairs for cell in (label, f"{share:.6g}"))])
    return b"".join(map(csv_line, lines))
