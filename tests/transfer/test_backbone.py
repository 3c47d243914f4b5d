import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import trained_like
from pictures import fill
from resnetkit.data.load import load_data
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Compute, choose, has_fast_bf16
from resnetkit.networks.folding import fold
from resnetkit.transfer import backbone as engines
from resnetkit.transfer import openvino as openvino_engine
from resnetkit.transfer.backbone import TorchEngine, batch_size, create_engine
from resnetkit.transfer.features import extract
from resnetkit.transfer.openvino import OpenVINOEngine

CPU, BF16 = choose("cpu", "fp32"), choose("cpu", "bf16")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet18", {"stem": "cifar"}),
        ("resnet50", {}),
        ("resnet20", {}),
        ("plain20", {}),
        ("preact_resnet110", {}),
        ("preact_resnet164", {}),
        ("d2l_resnet18", {}),
    ],
)
def test_folding_changes_no_answer(name: str, changes: dict) -> None:
    net = trained_like(name, **changes).eval()
    folded = fold(net)
    x = torch.randn(2, net.arch.in_channels, 33, 33)
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(folded(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert (norms == 0) == (not net.arch.preactivation)
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


def prepared(channels: int, size: int = 40) -> tuple[Preprocess, torch.Tensor]:
    pixels = torch.randint(0, 256, (5, channels, size, size), dtype=torch.uint8)
    return Preprocess(size, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels]), pixels


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "resnext50_32x4d", "resnet20", "plain20", "preact_resnet110", "preact_resnet164"],
)
def test_both_engines_give_the_same_features(name: str) -> None:
    pytest.importorskip("openvino")
    net = trained_like(name).eval()
    preprocess, pixels = prepared(net.arch.in_channels)
    ours = TorchEngine(fold(net), preprocess, CPU)(pixels)
    theirs = OpenVINOEngine(fold(net), preprocess, CPU, batch=8, streams=1)(pixels)
    assert theirs.shape == ours.shape
    assert theirs.dtype == ours.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4 * np.abs(ours).max())


def test_bf16_is_autocasts_to_the_bit() -> None:
    net = trained_like("resnet20").eval()
    preprocess, pixels = prepared(3)
    found = TorchEngine(fold(net), preprocess, BF16)(pixels)
    folded = BF16.network(fold(net))
    with torch.inference_mode(), BF16.autocast():
        expected = folded.avgpool(folded.forward_features(preprocess.normalise(pixels))).flatten(1).float()
    assert np.array_equal(found, expected.numpy())


def test_a_large_job_takes_openvino_and_its_features_are_the_same(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("openvino")
    fill(tmp_path / "p", 5)
    split = load_data(str(tmp_path / "p"), whole=True).test
    preprocess, net = Preprocess(24, (0.5,) * 3, (0.25,) * 3), trained_like()

    def found(folder: str):
        return extract(net, preprocess, split, CPU, store=tmp_path / folder)

    small = found("small")
    monkeypatch.setattr(engines, "LARGE_JOB", 10)
    large = found("large")
    assert (small.by, large.by) == ("PyTorch in fp32", "OpenVINO in fp32")
    np.testing.assert_allclose(large.values, small.values, rtol=1e-4, atol=1e-4 * np.abs(small.values).max())
    names = [sorted(path.name for path in (tmp_path / each).glob("*.bin")) for each in ("small", "large")]
    assert names[0] == names[1], "the store does not depend on the engine"


@pytest.mark.parametrize("why", ["small", "not installed", "a layer that is not known"])
def test_without_openvino_or_a_reason_for_it_pytorch_runs(why: str, monkeypatch) -> None:
    preprocess, _ = prepared(3)
    if why == "not installed":
        monkeypatch.setattr(engines, "find_spec", lambda _: None)
    elif why == "a layer that is not known":
        pytest.importorskip("openvino")
        monkeypatch.delitem(openvino_engine._TRANSLATIONS, "relu")
    views = 10 if why == "small" else engines.LARGE_JOB
    assert create_engine(trained_like(), preprocess, CPU, views=views, batch=8, workers=1).name == "PyTorch"


@pytest.mark.parametrize("compute", [CPU, BF16])
def test_openvino_computes_in_the_precision_that_was_asked_for_or_not_at_all(compute: Compute) -> None:
    openvino = pytest.importorskip("openvino")
    preprocess, _ = prepared(3)
    made = create_engine(trained_like(), preprocess, compute, views=engines.LARGE_JOB, batch=8, workers=2)
    has = compute is CPU or has_fast_bf16(compute.device)
    assert made.name == ("OpenVINO" if has else "PyTorch")
    if isinstance(made, OpenVINOEngine):
        wanted = openvino.Type.bf16 if compute is BF16 else openvino.Type.f32
        assert made.compiled.get_property("INFERENCE_PRECISION_HINT") == wanted
        assert made.compiled.get_property("NUM_STREAMS") == 2


def test_openvino_reports_to_nobody_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    code = """
import json, sys
seen = []
sys.addaudithook(lambda event, _: event.startswith("socket.connect") and seen.append(event))
from resnetkit.transfer.openvino import import_openvino
ready = import_openvino().Core().available_devices
print(json.dumps([ready, seen, [name for name in sys.modules if name.startswith("openvino_telemetry")]]))
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment = {name: value for name, value in environment.items() if name not in ("CI", "GITHUB_ACTIONS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    ready, connections, modules = json.loads(done.stdout)
    assert "CPU" in ready
    assert (connections, modules, list(tmp_path.iterdir())) == ([], [], [])


@pytest.mark.parametrize(
    ("size", "views", "workers", "expected"),
    [(224, 10_000, 2, 8), (32, 10_000, 2, 256), (224, 3, 16, 1), (224, 8, 2, 2)],
)
def test_batches_suit_the_caches_and_leave_no_worker_idle(size: int, views: int, workers: int, expected: int) -> None:
    assert batch_size(CPU, size, views, workers) == expected
