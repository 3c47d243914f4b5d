"""The manual's page on networks: what it tells people to type, run as it stands."""

import re
from pathlib import Path

import pytest
import torch

import resnetkit as rk
from resnetkit.networks.elsewhere import ARGUMENTS, ATTRIBUTES

TEXT = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()


def test_the_code_of_the_page_runs_and_its_heat_map_is_grad_cams(capsys: pytest.CaptureFixture[str]) -> None:
    """The oracle of the last block: of a mean over the plane, the derivative is the class's weight per position."""
    torch.manual_seed(0)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(block, names)
    assert "layer4 (2, 512, 2, 2)" in capsys.readouterr().out
    activations, net = names["activations"], names["net"]
    expected = torch.einsum("nchw,c->nhw", activations, net.fc.weight[3] / 4).relu()
    torch.testing.assert_close(names["heat"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:The TorchScript type system:UserWarning")
def test_the_sentence_on_torch_jit_script_is_true() -> None:
    (code,) = re.findall(r"`(torch\.jit\.script\(.+?\))`", TEXT)
    net = rk.create_model("preact_resnet110", depths=(1, 1, 1)).eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(eval(code, {"torch": torch, "net": net})(x), net(x))


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer4[-1]"), ("resnet20", "layer3[-1]"), ("preact_resnet110", "norm")]
)
def test_the_target_layers_give_what_the_head_pools(name: str, layer: str) -> None:
    assert f"`net.{layer}`" in TEXT
    net, seen = rk.create_model(name).eval(), []
    eval(f"net.{layer}", {"net": net}).register_forward_hook(lambda _module, _given, out: seen.append(out))
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(net.forward_head(net.forward_features(x)), net.forward_head(seen[0]))


def test_the_table_of_names_is_that_of_the_answers() -> None:
    (table,) = re.findall(r"\| they write \| here \|\n.*?\n\n", TEXT, re.DOTALL)
    for row in table.splitlines()[2:-1]:
        theirs, ours = row.strip("| ").split(" | ")
        for name in re.findall(r"`(\w+)(?:=True)?`|`(num_classes=0)`", theirs):
            told = [answers[key] for answers in (ARGUMENTS, ATTRIBUTES) for key in name if key in answers]
            assert told, name
            assert any(
                word.split("(")[0].split("=")[0].strip() in one for word in re.findall("`(.+?)`", ours) for one in told
            )
