"""Pictures that look unlike what one learns from: blurred, black, empty, of another shape than all others.

The thresholds are such that next to none of the photographs and small pictures at hand is named: see docs/check.md.
"""

from collections.abc import Iterator
from statistics import median

from resnetkit.data.scan import Entry
from resnetkit.doctor.report import ENORMOUS, TINY, Finding, found

DARK = 50
"""99 % of the pixels are no lighter, of 255."""
BRIGHT = 240
"""95 % of the pixels are no darker."""
EMPTY = 4
"""Grey levels of standard deviation; what lies below is one surface with noise, or a speck on it."""
BLURRY = 0.25
"""Of the contrast; edges that are weaker are spread over several pixels even in a copy of 64."""
ODD_SIZE = 4
"""Times the median side, or a part of it. The side is that of a square of as many pixels."""
ODD_RATIO = 3
"""Times the median of width to height, or a part of it."""
ENOUGH = 10
"""Images without which there is no telling what the others are like."""
CONSTANT = 8
"""The widest channel spans so many times as many levels. JPEG spreads one that held one value by 25 levels, of 255."""


def appearances(entries: dict[str, Entry]) -> Iterator[Finding]:
    """What is odd about readable images by themselves, then among the others, then about them all."""
    readable = {name: entry for name, entry in entries.items() if not entry.why}
    for name, entry in readable.items():
        yield from _alone(name, entry)
    if len(readable) >= ENOUGH:
        yield from _among_others(readable)
        yield from _constant_channels(list(readable.values()))


def _alone(name: str, entry: Entry) -> Iterator[Finding]:
    if entry.deviation < EMPTY:
        yield found("low-information", [name], f"its grey levels deviate by {entry.deviation:.1f} of 255")
        return
    if entry.high <= DARK:
        yield found("dark", [name], f"99 % of its pixels are no lighter than {entry.high} of 255")
    if entry.low >= BRIGHT:
        yield found("bright", [name], f"95 % of its pixels are no darker than {entry.low} of 255")
    contrast = max(entry.high - entry.low, 1)
    if entry.edges < BLURRY * contrast:
        yield found("blurry", [name], f"its sharpest edges have {100 * entry.edges / contrast:.0f} % of its contrast")


def _among_others(entries: dict[str, Entry]) -> Iterator[Finding]:
    side = median((entry.width * entry.height) ** 0.5 for entry in entries.values())
    ratio = median(entry.width / entry.height for entry in entries.values())
    coloured = sum(entry.coloured for entry in entries.values())
    for name, entry in entries.items():
        size = f"{entry.width:,} x {entry.height:,} pixels"
        said = entry.width * entry.height > ENORMOUS or min(entry.width, entry.height) < TINY
        if not said and _apart((entry.width * entry.height) ** 0.5, side) > ODD_SIZE:
            yield found("odd-size", [name], f"{size}; the median side is {side:,.0f}")
        if _apart(entry.width / entry.height, ratio) > ODD_RATIO:
            yield found("odd-aspect-ratio", [name], f"{size}; the median ratio is {ratio:.2f}")
        if not entry.coloured and entry.deviation >= EMPTY and coloured > len(entries) / 2:
            yield found("grey", [name], "it has no colour, and most have")


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _constant_channels(entries: list[Entry]) -> Iterator[Finding]:
    ends = list(zip(*(bytes.fromhex(entry.levels) for entry in entries), strict=True))
    pairs = zip(("red", "green", "blue"), ends[::2], ends[1::2], strict=True)
    spans = {name: max(highest) - min(lowest) for name, lowest, highest in pairs}
    for name, span in spans.items():
        if span * CONSTANT < max(spans.values()):
            within = f", within {span} levels of 255" if span else ""
            yield found("constant-channel", [], f"the {name} channel is the same in all images{within}")
