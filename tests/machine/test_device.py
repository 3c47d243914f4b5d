from pathlib import Path

import pytest
import torch

from resnetkit.errors import UsageError
from resnetkit.machine.device import choose, describe_machine, has_fast_bf16
from resnetkit.networks.resnet import build


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads what Linux says of the processor")
def test_auto_takes_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetkit.machine.device.has_fast_bf16", has_fast_bf16)
    cpu = torch.device("cpu")
    assert choose("cpu").precision == ("bf16" if has_fast_bf16(cpu) else "fp32")
    flags = Path("/proc/cpuinfo").read_text()  # the kernel's word is the oracle
    assert has_fast_bf16(cpu) == ("avx512_bf16" in flags or "amx_bf16" in flags)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"device 'cuda:77' is not on this machine.*Try: --device auto"):
        choose("cuda:77")
    with pytest.raises(UsageError, match="device 'abacus' is not on this machine"):
        choose("abacus")


def test_networks_become_channels_last_and_compute_the_same() -> None:
    compute = choose("cpu", "fp32")
    torch.manual_seed(0)
    net = build("resnet20").eval()
    x = torch.randn(2, 3, 32, 32)
    before = net(x)
    after = compute.network(net)(x.to(memory_format=torch.channels_last))
    assert net.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)


def test_bf16_runs_the_network_in_bf16() -> None:
    compute = choose("cpu", "bf16")
    with compute.autocast():
        assert torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 4, 4)).dtype == torch.bfloat16
    assert "bf16" in compute.describe()


def test_the_machine_is_described_by_versions() -> None:
    assert describe_machine()["torch"] == torch.__version__


@pytest.mark.gpu
def test_an_accelerator_is_taken_where_there_is_one() -> None:
    assert choose("auto").device.type != "cpu"


@pytest.mark.parametrize("name", ["mps", "meta", "cuda:99", "gpu", "x" * 1000, "cpu\x1b[1m"])
def test_a_device_that_is_not_there_is_refused_in_few_words(name: str) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(UsageError, match=r"is not on this machine: it has cpu.* Try: --device auto$") as refused:
        choose(name)
    assert len(str(refused.value)) < 200
