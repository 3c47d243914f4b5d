"""Answers for any number of files, into a file of them: it goes on where it was killed, and ranks share the work.

Inputs are taken in blocks. The rows of a block are kept when all of them are there; at the end the blocks are read in
their order and the file is put together, so that its bytes are those of an undisturbed run of one process.
"""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from resnetkit.classifier import Classifier
from resnetkit.images.protocol import ONE_VIEW, ViewProtocol
from resnetkit.machine.ranks import ALONE, Ranks
from resnetkit.machine.storage import replacing
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.inputs import STDIN, Input, iter_inputs
from resnetkit.prediction.part import BLOCK, Part, digest_of, opened, part_of, require_free
from resnetkit.prediction.predict import predict_inputs
from resnetkit.prediction.sorting import Sorter
from resnetkit.prediction.table import Say, Table, Write, kind_of

Moved = Callable[[int], None]


@dataclass
class Tally:
    """What was answered: how often each class, and how many inputs could not be read."""

    labels: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    kept: int = 0
    """Rows that were there when a job went on."""
    stale: int = 0
    """Rows that were there, about, of inputs that are no longer the same."""

    @property
    def count(self) -> int:
        """All rows."""
        return self.labels.total() + self.failed

    def add(self, row: Prediction, say: Say) -> None:
        """One more row."""
        if row.error is None:
            self.labels[say(row)["label"]] += 1
        else:
            self.failed += 1


def predict_into(
    out: Path,
    classifier: Classifier,
    given: Sequence[str | Path],
    *,
    top: int,
    batch_size: int,
    protocol: ViewProtocol = ONE_VIEW,
    options: Mapping[str, Any] | None = None,
    say: Say = Prediction.to_dict,
    overwrite: bool = False,
    resume: bool = False,
    sorter: Sorter | None = None,
    ranks: Ranks = ALONE,
    moved: Moved = lambda _: None,
) -> Tally:
    """Answer all inputs in a file: CSV, JSON lines or Parquet by the end of its name; whole, or not there.

    `options` are what else the answers depend on; `say` makes of a row what is written of it; `moved` hears how many
    inputs are behind us. All ranks call this, and the first one writes the file. What was done is kept beside it, in
    `NAME.part/`, until it is finished.
    Raises `UsageError` (exit code 2) as `part.opened` does, `DataError` (exit code 3) as `iter_inputs` does,
    `StorageError` (exit code 7).
    """
    kind, top = kind_of(out), min(top, len(classifier.classes))
    answer = partial(predict_inputs, classifier, top=top, batch_size=batch_size, protocol=protocol)
    job = _job(classifier, given, {"top": top, "protocol": repr(protocol), **(options or {})})
    with ExitStack() as until_finished:
        begin = partial(opened, out, job, overwrite=overwrite, resume=resume)
        part = ranks.from_first(lambda: until_finished.enter_context(begin()))
        written = [out, part_of(out), *([sorter.folder] if sorter is not None else [])]
        blocks = _answer_blocks(part, _inputs(given, classifier, ranks, written), answer, ranks, moved)
        ranks.agree({"the inputs": digest_of(blocks)})
        table = partial(kind, top=top, say=say)
        return ranks.from_first(partial(_put_together, out, part, blocks, table, say, sorter))


def _job(classifier: Classifier, given: Iterable[str | Path], options: Mapping[str, Any]) -> dict[str, str]:
    """Of what the answers depend."""
    digest = hashlib.sha256(repr((classifier.classes, classifier.preprocess, classifier.temperature)).encode())
    for name, tensor in sorted(classifier.network.state_dict().items()):
        digest.update(name.encode() + repr((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    if classifier.unknown is not None:
        digest.update(classifier.unknown.to_bytes())
    compute = classifier.compute
    said = repr({**options, "device": compute.device.type, "precision": compute.precision})
    return {
        "model": digest.hexdigest(),
        "options": said,
        "inputs": hashlib.sha256(repr([str(each) for each in given]).encode()).hexdigest(),
    }


def _inputs(given: Sequence[str | Path], classifier: Classifier, ranks: Ranks, written: list[Path]) -> Iterator[Input]:
    """All inputs but what this job itself writes among them. What is on stdin the first rank alone can read."""
    found = partial(iter_inputs, given, classifier.preprocess.channels)
    if not ranks.alone and any(str(each) == STDIN for each in given):
        yield from ranks.from_first(lambda: list(found()))
        return
    yield from without(written, given, found())


def without(places: Iterable[Path], given: Iterable[str | Path], inputs: Iterator[Input]) -> Iterator[Input]:
    """Inputs but those that are, or are in, places that are written to meanwhile where these lie in a folder given."""
    folders = [_absolute(each) for each in given if Path(each).is_dir()]
    ours = [_absolute(each) for each in places]
    ours = [each for each in ours if any(each.startswith(f"{folder}{os.sep}") for folder in folders)]
    if not ours:
        return inputs
    inside = tuple(f"{each}{os.sep}" for each in ours)
    paths = ((each, _absolute(each.name)) for each in inputs)
    return (each for each, path in paths if path not in ours and not path.startswith(inside))


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - of every input, and links stay what they are


def _answer_blocks(
    part: Part,
    inputs: Iterator[Input],
    answer: Callable[[Iterator[Input]], Iterator[Prediction]],
    ranks: Ranks,
    moved: Moved,
) -> list[str]:
    """Answer this rank's share of all blocks that are not there yet; gives the names of all blocks."""
    blocks: list[str] = []
    waiting: deque[tuple[str, int]] = deque()
    kept = done = 0

    def share() -> Iterator[Input]:
        nonlocal kept
        missing = 0
        while block := list(islice(inputs, BLOCK)):
            blocks.append(f"{len(blocks):08d}-{digest_of(each.name for each in block)}")
            if blocks[-1] in part.kept:
                kept += len(block)
                continue
            missing += 1
            if missing % ranks.size == ranks.rank:
                waiting.append((blocks[-1], len(block)))
                yield from block

    rows: list[Prediction] = []
    for row in answer(share()):
        rows.append(row)
        name, size = waiting[0]
        if len(rows) == size:
            waiting.popleft()
            part.write(name, rows)
            done += size
            rows = []
        moved(kept + (done + len(rows)) * ranks.size)
    return blocks


def _put_together(
    out: Path, part: Part, blocks: list[str], kind: Callable[[Write], Table], say: Say, sorter: Sorter | None
) -> Tally:
    """The file, of its blocks in their order."""
    stale = part.kept.difference(blocks)
    tally = Tally(stale=len(stale) * BLOCK)
    with replacing(out, part.whole) as write:
        table = kind(write)
        for block in blocks:
            rows = part.read(block)
            tally.kept += len(rows) if block in part.kept else 0
            table.add(rows)
            for row in rows:
                tally.add(row, say)
                if sorter is not None:
                    sorter.place(row)
        table.finish()
        require_free(out, part)
    part.clear()
    return tally
