"""What the names of classes say: which a person takes for one, which are mirror images of one another."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from resnetkit.machine.console import shown

_LEFT_RIGHT = (
    *(("left", "right"), ("links", "rechts"), ("gauche", "droite"), ("izquierda", "derecha"), ("sinistra", "destra")),
    *(("esquerda", "direita"), ("лев", "прав"), ("左", "右"), ("왼", "오른"), ("좌", "우"), ("يسار", "يمين")),
    *(("counterclockwise", "clockwise"), ("逆时针", "顺时针"), ("逆時針", "順時針"), ("反時計", "時計")),
    *(("←", "→"), ("↖", "↗"), ("↙", "↘"), ("<", ">"), ("(", ")"), ("[", "]"), ("{", "}")),
)
"""Parts of names: `turn_left` and `LeftTurn`."""
_TOKENS = (("l", "r"), ("lh", "rh"), ("lhs", "rhs"), ("lt", "rt"), ("ccw", "cw"))
"""Whole words of names, where there are others: `hand_L`, but not the letters L and R."""
_LETTERS = (("b", "d"), ("p", "q"))
"""Whole words that mirror each other in lower case only."""


def imagenet_synsets() -> tuple[str, ...]:
    """The WordNet numbers of ImageNet's thousand classes, in the order of the published heads."""
    return tuple(
        resources.files("resnetkit").joinpath("data", "imagenet_synsets.txt").read_text(encoding="ascii").split()
    )


def told_apart(names: Iterable[str], others: Iterable[str] = ()) -> list[str]:
    """Names for people, each with its code points where it looks like another of them, or of `others`."""
    counts: dict[str, set[str]] = defaultdict(set)
    wanted = list(names)
    for name in (*wanted, *others):
        counts[_looks(name)].add(name)
    return [shown(name) if len(counts[_looks(name)]) == 1 else f"{shown(name)} ({name!a})" for name in wanted]


def _looks(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def same_in_other_form(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """For each name that is not known, the one that is and differs in Unicode form only, where there is exactly one."""
    forms: dict[str, list[str]] = defaultdict(list)
    exact = set(known)
    for name in exact:
        forms[unicodedata.normalize("NFC", name)].append(name)
    found = {name: forms.get(unicodedata.normalize("NFC", name), []) for name in names if name not in exact}
    return {name: alike[0] for name, alike in found.items() if len(alike) == 1}


def describe_forms(forms: Mapping[str, str], where: str) -> str:
    """One line on classes that are taken for one although the forms of their names differ."""
    one, other = next(iter(forms.items()))
    more = f", and {len(forms) - 1} more" if len(forms) > 1 else ""
    return f"{where} writes {shown(one)} in another Unicode form ({one!a} for {other!a}){more}: taken for one class"


def twins(names: Iterable[str]) -> list[list[str]]:
    """Groups of class names that a person, or another file system, takes for one."""
    alike = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"\s", "", unicodedata.normalize("NFC", name).casefold())].append(name)
    return [group for group in alike.values() if len(group) > 1]


def mirrored(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of classes that are mirror images of one another, as their names say: left and right, b and d."""
    spaced = {name: _spaced(name) for name in names}
    by_key = {text.casefold().replace(" ", ""): name for name, text in spaced.items()}
    pairs = []
    for name, text in spaced.items():
        for reflected in _reflections(text):
            other = by_key.get(reflected.casefold().replace(" ", ""))
            if other is not None and other != name and (other, name) not in pairs and (name, other) not in pairs:
                pairs.append((name, other))
    return pairs


def _spaced(name: str) -> str:
    """`turnLeft`, `turn-left` and `turn_left` are `turn Left` or `turn left`."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|[\s_.-]+", " ", unicodedata.normalize("NFKC", name)).strip()
    return re.sub(r"(?:counter|anti|contra) ?clockwise", "counterclockwise", text, flags=re.IGNORECASE)


def _reflections(text: str) -> Iterable[str]:
    """The name with each kind of left and right exchanged, where it speaks of them."""
    for pair in _LEFT_RIGHT:
        yield from _exchanged(text, pair, "|".join(map(re.escape, pair)), re.IGNORECASE)
    if " " in text:
        for pair in _TOKENS:
            yield from _exchanged(text, pair, rf"\b(?:{'|'.join(pair)})\b", re.IGNORECASE)
    for pair in _LETTERS:
        yield from _exchanged(text, pair, rf"\b(?:{'|'.join(pair)})\b", 0)


def _exchanged(text: str, pair: tuple[str, str], pattern: str, flags: int) -> Iterable[str]:
    exchange = {pair[0]: pair[1], pair[1]: pair[0]}
    reflected = re.sub(pattern, lambda match: exchange[match[0].lower()], text, flags=flags)
    if reflected != text:
        yield reflected


def order_of_head(names: Sequence[str]) -> list[int]:
    """Where each class stands in a head that nobody has named: as the folder has it, or as its numbers do.

    A folder lists 1, 10, 11, 2; whoever numbers classes and trains on them has them in the order of the numbers.
    """
    order = list(range(len(names)))
    if not all(name.isdecimal() for name in names):
        return order
    by_number = sorted(order, key=lambda label: (int(names[label]), names[label]))
    return [by_number.index(label) for label in order]
