"""The cards in results/: their commands against the command line itself, their figures against networks and paper."""

import re
import shlex
from pathlib import Path

import pytest

from resnetkit.networks.arch import VARIANTS
from resnetkit.networks.resnet import ResNet
from resnetkit.networks.summary import summarise
from resnetkit.studies import degradation, depth
from resnetkit.studies.study import Place

CARDS = Path(__file__).parent.parent / "results"
NAMES = [f"resnet{layers}" for layers in depth.PAPER] + [f"plain{layers}" for layers in depth.PAPER if layers < 1202]


def test_there_is_a_card_for_every_row_of_table_6_and_every_plain_net() -> None:
    assert {card.stem for card in CARDS.glob("*.md")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_the_network_as_it_is_and_the_papers_error(name: str) -> None:
    text = (CARDS / f"{name}.md").read_text()
    arch = VARIANTS[name]
    assert f"{sum(p.numel() for p in ResNet(arch, initialise=False).parameters()):,}" in text
    assert f"{summarise(arch, 32).multiply_adds / 1e6:.1f} M" in text
    if arch.residual:
        assert f"| {depth.PAPER[arch.layers]} %" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_a_card_is_understood_and_asks_only_for_the_images(name: str, cli, tmp_path: Path) -> None:
    (command,) = re.findall(r"^resnetkit (train .*)$", (CARDS / f"{name}.md").read_text(), re.MULTILINE)
    done = cli(*shlex.split(command), "--data-root", tmp_path, "--out", tmp_path / "run")
    assert done.code == 3
    assert "cifar10 is not complete" in done.err
    assert f"--model {name} " in command


@pytest.mark.parametrize("name", NAMES)
def test_a_card_and_the_study_train_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up, recomputation and seeds of the card are those that the full study asks for."""
    text, layers = (CARDS / f"{name}.md").read_text(), VARIANTS[name].layers
    study = depth if name.startswith("resnet") else degradation

    class AskedError(Exception):
        pass

    def ask(place: Place, name: str, **changes):
        raise AskedError(changes)

    monkeypatch.setattr(study, "fit", ask)
    place = Place(False, tmp_path)
    rows = [row for row in study.STUDY.rows(place) if row["depth"] == layers and row.get("lr", 0.1) == 0.1]
    rows = [row for row in rows if row.get("network", "plain") == "plain"]
    with pytest.raises(AskedError) as asked:
        study.STUDY.measure(rows[0], place)
    (changes,) = asked.value.args
    assert changes.get("optim", {}).get("warmup") == ("400 steps" if '--optim.warmup "400 steps"' in text else None)
    assert bool(changes.get("recompute")) == ("--recompute" in text)
    assert changes["model"]["depths"] == VARIANTS[name].depths
    assert f"Seeds 0 to {len(rows) - 1};" in text
