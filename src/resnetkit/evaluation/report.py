"""What an evaluation gives: a dictionary of JSON, which a notebook shows as a table."""

from typing import Any

from resnetkit.machine.console import shown
from resnetkit.machine.notebook import table


class Report(dict[str, Any]):
    """The keys of `evaluate --json`; docs/evaluate.md says what each of them is."""

    def _repr_html_(self) -> str:
        return table(self.facts())

    def facts(self) -> list[tuple[str, str]]:
        """The main figures: pairs of a heading and what it says."""
        facts = [
            (f"{shown(self['data'])}, {self['split']}", f"{self['count']:,} images"),
            ("top-1", accuracy(self["top1"], self["interval"]["top1"])),
            ("top-5", accuracy(self["top5"], self["interval"]["top5"])),
            ("loss", loss(self["loss"])),
            ("balanced accuracy", accuracy(self["balanced_accuracy"], self["interval"]["balanced_accuracy"])),
        ]
        if (chosen := self.get("validation")) is not None:
            facts.append(("validation top-1", accuracy(chosen["top1"], chosen["interval"]["top1"])))
        row_of = {row["class"]: row for row in self["classes"]}
        recalls = ((name, row_of[name]["recall"], row_of[name]["interval"]["recall"]) for name in self["worst"])
        facts += [(f"recall of {shown(name)}", accuracy(share, interval)) for name, share, interval in recalls]
        facts += [("confused", confusion(each)) for each in self["confusions"]]
        return facts


def accuracy(percent: float, interval: list[float]) -> str:
    """An accuracy with its interval, for people."""
    return f"{percent:.2f} % ({interval[0]:.2f} to {interval[1]:.2f})"


def loss(value: float | None) -> str:
    """A mean cross-entropy, for people; in JSON, which has no infinity, that is null."""
    return "infinite" if value is None else f"{value:.4f}"


def confusion(each: dict[str, Any]) -> str:
    """Two classes that were confused, for people."""
    return f"{shown(each['class'])} answered as {shown(each['answer'])}: {each['count']:,} of {each['support']:,}"
