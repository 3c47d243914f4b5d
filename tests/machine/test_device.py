from contextlib import suppress
from pathlib import Path

import pytest
import torch

from resnetkit.errors import UsageError
from resnetkit.machine.device import (
    Compute,
    Precision,
    best_precision,
    choose,
    describe_machine,
    has_fast_bf16,
    is_out_of_memory,
)
from resnetkit.networks.resnet import build
from resnetkit.recipes.schema import Recipe


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


@pytest.mark.parametrize(
    ("name", "capability", "native", "expected"),
    [
        ("Tesla T4", (7, 5), False, "fp16"),
        ("Tesla V100-SXM2-16GB", (7, 0), False, "fp16"),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), False, "fp32"),  # reports of NaN in fp16, and no tensor cores
        ("NVIDIA GeForce GTX 1080", (6, 1), False, "fp32"),
        ("NVIDIA A100-SXM4-40GB", (8, 0), True, "bf16"),
    ],
)
def test_auto_on_gpus(
    name: str, capability: tuple[int, int], native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver says of five GPUs, here said by the test: there is none of them on this machine."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr("resnetkit.machine.device.has_fast_bf16", lambda _: native)
    assert best_precision(torch.device("cuda")) == expected


def test_recipes_know_every_precision() -> None:
    assert Recipe.model_fields["precision"].annotation == Precision


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError, match=r"^precision tf32 is not on cpu: .*8\.0 on\. Try: --precision auto$"):
        choose("cpu", "tf32")
    with pytest.raises(UsageError, match="'fp8'"):
        choose("cpu", "fp8")


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", "ieee"), ("tf32", "tf32"), ("fp16", "ieee")])
@pytest.mark.parametrize("legacy", ["highest", "high"])
def test_switches_of_nvidia_gpus_are_as_before_afterwards(precision: str, rounding: str, legacy: str) -> None:
    """The switches are there without a GPU too; somebody may have set them in PyTorch's older way."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    torch.set_float32_matmul_precision(legacy)
    before = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark
    with suppress(KeyError), Compute(torch.device("cuda"), precision).tuned():
        assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark) == (rounding, rounding, True)
        raise KeyError
    assert (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark) == before
    assert torch.get_float32_matmul_precision() == legacy
    torch.set_float32_matmul_precision("highest")


def test_running_out_of_memory_is_known_by_what_each_backend_says() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.0 GB, max allowed: 18.1 GB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


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
