"""Weights as a stranger may have made them: refused in one clean line, soon, in little memory (T14, W5, W8)."""

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

import resnetkit as rk
from outside import End, read_outside, refused
from resnetkit.classifier import Classifier
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import choose
from resnetkit.weights.tensorfile import read_tensors

STRANGE = b"\x80\x02"
ONE = struct.pack("<4f", 1, 2, 3, 4)


def _op(value: object) -> bytes:
    """A number, a text or a tuple of such, as a pickle of version 2 has it."""
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_op, value)) + b"t"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    assert isinstance(value, int)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def _call(name: str, *arguments: bytes) -> bytes:
    return b"c" + name.encode() + b"\n(" + b"".join(arguments) + b"tR"


def _storage(key: object = "0", count: object = 4, kind: str = "FloatStorage") -> bytes:
    return b"(" + _op("storage") + b"ctorch\n" + kind.encode() + b"\n" + _op(key) + _op("cpu") + _op(count) + b"tQ"


def _tensor(size: object = (4,), stride: object = (1,), offset: object = 0, **storage: object) -> bytes:
    numbers = (_op(offset), _op(size), _op(stride), b"\x89", b")")
    return _call("torch._utils\n_rebuild_tensor_v2", _storage(**storage), *numbers)


def _dictionary(**items: bytes) -> bytes:
    return b"}(" + b"".join(_op(name) + value for name, value in items.items()) + b"u"


def _archive(pickled: bytes, numbers: bytes = ONE, compression: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("a/data.pkl", STRANGE + pickled + b".")
        archive.writestr("a/data/0", numbers)
        archive.writestr("a/version", "3\n")
        for name, content in more.items():
            archive.writestr(f"a/{name}", content)
    return stream.getvalue()


def _before_2020(
    pickled: bytes, keys: bytes = b"](" + _op("0") + b"e", behind: bytes = struct.pack("<q", 4) + ONE
) -> bytes:
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, about)]
    pickled = pickled.replace(b"tQ", b"NtQ")  # a storage's name has one more part: of which it is a view
    return b"".join(parts) + STRANGE + pickled + b"." + STRANGE + keys + b"." + behind


def _saved(tensors: object) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def _safe(header: object, numbers: bytes = ONE) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def _entry(shape: object = (4,), kind: object = "F32", places: object = (0, 16)) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": places}


DOUBLED = b")q\x00" + b"h\x00\x86q\x00" * 64
"""A tuple of two of the tuple before, 64 times over: to hash it takes for ever, and so it does to print it."""
LIST_OF_PAIRS = b"](" + (_op(("a", 1))) * 2000 + b"eq\x00"
FILES: dict[str, Callable[[], bytes]] = {
    "a tuple of tuples as a key": lambda: _archive(b"}" + DOUBLED + _op(1) + b"s"),
    "a tuple of tuples in a set": lambda: _archive(_call("__builtin__\nset", b"](" + DOUBLED + b"e")),
    "a tuple of tuples as the whole": lambda: _archive(DOUBLED),
    "a tuple of tuples as a storage's name": lambda: _archive(
        b"(" + _op("storage") + b"ctorch\nFloatStorage\n" + DOUBLED + _op("cpu") + _op(4) + b"tQ"
    ),
    "a million tuples deep, as a key": lambda: _archive(b"})" + b"\x85" * 1_000_000 + _op(1) + b"s"),
    "a million lists deep": lambda: _archive(b"(" * 1_000_000 + b"l" * 1_000_000),
    "eight million dictionaries": lambda: _archive(b"}" * 8_000_000),
    "a dictionary in itself": lambda: _archive(b"}q\x00" + _op("state_dict") + b"h\x00s"),
    "a list doubled 64 times": lambda: _archive(b"]q\x00" + b"](h\x00h\x00eq\x00" * 64),
    "pairs, made a dictionary 10,000 times": lambda: _archive(
        LIST_OF_PAIRS + b"ccollections\nOrderedDict\n(h\x00tR" * 10_000
    ),
    "expanded by a stride of 0": lambda: _archive(_dictionary(a=_tensor((2_000_000_000,), (0,)))),
    "expanded by an eighth": lambda: _archive(_dictionary(a=_tensor((8,), (0,)))),
    "a shape beyond its numbers": lambda: _archive(_dictionary(a=_tensor((40_000, 40_000), (40_000, 1)))),
    "a shape of 2^40": lambda: _archive(_dictionary(a=_tensor((2**40, 2**40), (1, 1)))),
    "a shape of -4": lambda: _archive(_dictionary(a=_tensor((-4,), (1,)))),
    "a shape of 2^100": lambda: _archive(_dictionary(a=_tensor((2**100,), (1,)))),
    "a shape of letters": lambda: _archive(_dictionary(a=_tensor(("4",), (1,)))),
    "a shape of 100,000 sides": lambda: _archive(_dictionary(a=_tensor((1,) * 100_000, (1,) * 100_000))),
    "sides and strides that differ": lambda: _archive(_dictionary(a=_tensor((2, 2), (1,)))),
    "a tensor of nothing": lambda: _archive(_dictionary(a=_tensor((0, 2**40), (1, 1)))),
    "an offset of 2^40": lambda: _archive(_dictionary(a=_tensor(offset=2**40))),
    "an offset of -4": lambda: _archive(_dictionary(a=_tensor(offset=-4))),
    "a stride of 2^40": lambda: _archive(_dictionary(a=_tensor((2, 2), (2**40, 1)))),
    "a stride of -1": lambda: _archive(_dictionary(a=_tensor((4,), (-1,)))),
    "a storage of 2^45": lambda: _archive(_dictionary(a=_tensor((2**30,), (1,), count=2**45))),
    "a storage that is not there": lambda: _archive(_dictionary(a=_tensor(key="../../etc/passwd"))),
    "a storage with a number for a name": lambda: _archive(_dictionary(a=_tensor(key=0))),
    "2,000 views of one megabyte in 16 bits": lambda: _archive(
        _dictionary(**{f"a{i}": _tensor((500_000,), (1,), count=500_000, kind="HalfStorage") for i in range(2000)}),
        bytes(1_000_000),
    ),
    "a quantised tensor": lambda: _archive(_dictionary(a=_call("torch._utils\n_rebuild_qtensor", _storage()))),
    "10 GB of zeros by bytearray": lambda: _archive(_call("__builtin__\nbytearray", _op(10**10))),
    "10 GB of zeros by Tensor": lambda: _archive(_dictionary(a=_call("torch\nTensor", _op(10**5), _op(10**5)))),
    "10 GB of zeros by storage": lambda: _archive(_call("torch.storage\nUntypedStorage", _op(10**10))),
    "a text of 4 GiB": lambda: _archive(b"}X\xff\xff\xff\xff"),
    "a number of 2 GiB": lambda: _archive(b"}\x8b\xff\xff\xff\x7f"),
    "a number of a megabyte as a key, again and again": lambda: _archive(
        b"}\x8b"
        + struct.pack("<i", 10**6)
        + b"\x01" * 10**6
        + b"q\x00"
        + _op(1)
        + b"s"
        + (b"h\x00" + _op(1) + b"s") * 10**5
    ),
    "a name of 10 MB": lambda: _archive(_dictionary(**{"x" * 10**7: _tensor()})),
    "a name of 'module.' 100,000 times": lambda: _archive(_dictionary(**{"module." * 10**5: _tensor()})),
    "names of 'module.' 60 times": lambda: _archive(_dictionary(**{"module." * 60 + "conv1.weight": _tensor()})),
    "60,000 tensors": lambda: _safe({f"a{i}": _entry((0,), places=(0, 0)) for i in range(60_000)} | {"z": _entry()}),
    "60,000 tensors in a pickle": lambda: _archive(
        _tensor() + b"q\x000}(" + b"".join(_op(f"a{i}") + b"h\x00" for i in range(60_000)) + b"u"
    ),
    "a layer of 5,000 digits": lambda: _archive(_dictionary(**{f"layer{'9' * 400}.0.conv1.weight": _tensor()})),
    "a stem of no dimension": lambda: _saved({"conv1.weight": torch.tensor(1.0), "fc.weight": torch.ones(2, 2)}),
    "a head of no dimension": lambda: _saved({"conv1.weight": torch.ones(2, 3, 3, 3), "fc.weight": torch.tensor(1.0)}),
    "a head of three": lambda: _saved({"conv1.weight": torch.ones(2, 3, 3, 3), "fc.weight": torch.ones(1, 1, 1)}),
    "an end that is none": lambda: _archive(b"}")[:-30],
    "nothing": lambda: _archive(b""),
    "an unknown operation": lambda: _archive(b"\xff"),
    "an extension": lambda: _archive(b"\x82\x01"),
    "an item for nothing": lambda: _archive(b"}s"),
    "an item for a number": lambda: _archive(_op(1) + _op(1) + _op(1) + b"s"),
    "a memory that is empty": lambda: _archive(b"h\x07"),
    "a call of a number": lambda: _archive(_op(1) + b")R"),
    "os.system by name": lambda: _archive(_call("posix\nsystem", _op("touch canary"))),
    "os.system by two names": lambda: _archive(_op("posix") + _op("system") + b"\x93" + _op("touch canary") + b"\x85R"),
    "os.system by an old instance": lambda: _archive(b"(" + _op("touch canary") + b"iposix\nsystem\n"),
    "a class by NEWOBJ": lambda: _archive(b"csubprocess\nPopen\n" + _op("touch canary") + b"\x85\x81"),
    "another storage's kind": lambda: _archive(_dictionary(a=_tensor(kind="__name__"))),
    "a compressed archive": lambda: _archive(_dictionary(a=_tensor()), bytes(10**6), zipfile.ZIP_DEFLATED),
    "an archive without a pickle": lambda: _archive(b"}").replace(b"data.pkl", b"data.pkx"),
    "a pickle of 40 MB": lambda: _archive(b"X" + struct.pack("<I", 40 * 10**6) + b"x" * 40 * 10**6),
    "numbers the other way round": lambda: _archive(_dictionary(a=_tensor()), byteorder=b"big"),
    "numbers that were changed": lambda: _archive(_dictionary(a=_tensor())).replace(ONE, ONE[::-1]),
    "fewer numbers than said": lambda: _archive(_dictionary(a=_tensor()), ONE[:8]),
    "before 2020: a count of 2^62": lambda: _before_2020(
        _dictionary(a=_tensor()), behind=struct.pack("<q", 2**62) + ONE
    ),
    "before 2020: a count of -1": lambda: _before_2020(_dictionary(a=_tensor()), behind=struct.pack("<q", -1) + ONE),
    "before 2020: an end too soon": lambda: _before_2020(_dictionary(a=_tensor()))[:-8],
    "before 2020: storages that are numbers": lambda: _before_2020(_dictionary(a=_tensor()), b"](" + _op(0) + b"e"),
    "before 2020: no storages": lambda: _before_2020(_dictionary(a=_tensor()), b"]"),
    "before 2020: other storages": lambda: _before_2020(_dictionary(a=_tensor()), b"](" + _op("1") + b"e"),
    "before 2020: a view beyond": lambda: _before_2020(
        _dictionary(a=_tensor()).replace(b"tQ", _op(("v", 2**40, 4)) + b"tQ")
    ),
    "before 2020: expanded": lambda: _before_2020(_dictionary(a=_tensor((10**9,), (0,)))),
    "another pickle": lambda: pickle.dumps({"conv1.weight": [1.0, 2.0]}, 2),
    "safetensors: a header of 9 MB": lambda: _safe(json.dumps({"a": _entry()}).encode().ljust(9 << 20)),
    "safetensors: 100,000 brackets": lambda: _safe(b'{"a":' + b"[" * 100_000),
    "safetensors: a header that is a list": lambda: _safe(b'{"a":[1,2]}'),
    "safetensors: a header of nothing": lambda: _safe({}, b""),
    "safetensors: a shape below 0": lambda: _safe({"a": _entry((-4,))}),
    "safetensors: a shape of 100,000 sides": lambda: _safe({"a": _entry((1,) * 100_000, places=(0, 4))}, ONE[:4]),
    "safetensors: a shape of 2^62 and 0": lambda: _safe({"a": _entry((2**62, 0), places=(0, 0))}, b""),
    "safetensors: a shape of 2^62 and 2^62": lambda: _safe({"a": _entry((2**62, 2**62))}),
    "safetensors: a kind that is none": lambda: _safe({"a": _entry(kind="F33")}),
    "safetensors: places that are none": lambda: _safe({"a": _entry(places=None)}),
    "safetensors: places beyond": lambda: _safe({"a": _entry(places=(0, 2**60))}),
    "safetensors: more behind": lambda: _safe({"a": _entry()}, ONE * 2),
    "safetensors: a name of 10,000 letters": lambda: _safe({"a" * 10_000: _entry()}),
}


REASONS = {
    "a million lists deep": "its pickle has too many parts",
    "eight million dictionaries": "its pickle has too many parts",
    "pairs, made a dictionary 10,000 times": "its pickle has too many parts",
    "expanded by a stride of 0": "its tensors would be more than 4 times as large as it is",
    "2,000 views of one megabyte in 16 bits": "its tensors would be more than 4 times as large as it is",
    "expanded by an eighth": "a needs other numbers than there are",
    "a tensor of nothing": "a needs other numbers than there are",
    "an offset of 2^40": "a needs other numbers than there are",
    "a stride of 2^40": "a needs other numbers than there are",
    "fewer numbers than said": "a needs other numbers than there are",
    "a name of 10 MB": "the name of a tensor has 10,000,000 letters",
    "a name of 'module.' 100,000 times": "the name of a tensor has 700,000 letters",
    "60,000 tensors": "it has 60,001 tensors, more than any network",
    "60,000 tensors in a pickle": "it has 60,000 tensors, more than any network",
}
"""Why, where another guard behind it would have refused the file too, later or at a higher price."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, End]:
    """How the reading of each file ends, all in one process."""
    root = tmp_path_factory.mktemp("files")
    places = {name: root / f"{number}.pth" for number, name in enumerate(FILES)}
    for name, path in places.items():
        path.write_bytes(FILES[name]())
    found = read_outside("resnetkit.weights.load:load", list(places.values()))
    return {name: found[str(path)] for name, path in places.items()}


@pytest.mark.parametrize("name", FILES)
def test_weights_that_were_made_to_harm_are_refused(name: str, files: dict[str, End]) -> None:
    said = refused(files[name], 4)
    assert REASONS.get(name, "") in said
    assert ("posix.system" in said) == name.startswith("os.system by n") or "two names" in name


def test_the_file_that_these_are_made_from_is_read(tmp_path: Path) -> None:
    for make in (_archive, _before_2020):
        (tmp_path / "w.pth").write_bytes(make(_dictionary(a=_tensor((2, 2), (1, 2)))))
        assert read_tensors(tmp_path / "w.pth").tensors["a"].tolist() == [[1, 3], [2, 4]]
        assert torch.load(tmp_path / "w.pth", weights_only=True)["a"].tolist() == [[1, 3], [2, 4]]
    (tmp_path / "w.pth").write_bytes(_safe({"a": _entry((2, 2))}))
    assert read_tensors(tmp_path / "w.pth").tensors["a"].tolist() == [[1, 2], [3, 4]]


# Settings


def _ours(**changes: object) -> Callable[[dict], object]:
    """Our own settings with some values changed, each by the names that lead to it."""

    def change(config: dict) -> dict:
        for names, value in changes.items():
            *way, last = names.split("__")
            inner = config["resnetkit"]
            for name in way:
                inner = inner[name]
            if value == "gone":
                del inner[last]
            else:
                inner[last] = value
        return config

    return change


def _arch(**changes: object) -> Callable[[dict], object]:
    return _ours(**{f"arch__{name}": value for name, value in changes.items()})


def _look(**changes: object) -> Callable[[dict], object]:
    return _ours(**{f"preprocess__{name}": value for name, value in changes.items()})


def _timm(**changes: object) -> Callable[[dict], object]:
    settings = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32], "label_names": list("abcdefghij")}
    return lambda _: {"architecture": "resnet20", "pretrained_cfg": settings | changes}


def _hugging_face(**changes: object) -> Callable[[dict], object]:
    return lambda _: {"model_type": "resnet", "id2label": {"0": "a"}} | changes


BIG = 10**9
CONFIGS: dict[str, Callable[[dict], object]] = {
    "a million blocks": _arch(depths=[10**6, 1]),
    "a billion blocks": _arch(depths=[BIG, BIG]),
    "9,000 blocks, which the file has not": _arch(depths=[4500, 4500]),
    "10^40 blocks": _arch(depths=[10**40, 1]),
    "no blocks": _arch(depths=[0, 1]),
    "-1 blocks": _arch(depths=[-1, 1]),
    "half a block": _arch(depths=[0.5, 1]),
    "blocks of letters": _arch(depths="many"),
    "blocks nested": _arch(depths=[[1], [1]]),
    "no depths": _arch(depths="gone"),
    "depths null": _arch(depths=None),
    "10,000 stages": _arch(depths=[1] * 10_000, widths=[8] * 10_000, strides=[1] * 10_000),
    "stages that differ": _arch(depths=[1, 1, 1]),
    "a billion channels": _arch(widths=[BIG, BIG]),
    "channels beyond the file": _arch(widths=[8192, 8192]),
    "channels other than the file's": _arch(widths=[8, 12]),
    "a stem of a billion": _arch(stem_width=BIG),
    "a billion classes": _arch(num_classes=BIG),
    "classes beyond the file": _arch(num_classes=10**6),
    "a billion input channels": _arch(in_channels=BIG),
    "no input channels": _arch(in_channels=0),
    "a billion groups": _arch(block="bottleneck", groups=BIG),
    "groups of nothing": _arch(block="bottleneck", groups=1, group_width=1, widths=[8, 16]),
    "a stride of 2^200": _arch(strides=[2**200, 1]),
    "a block of another kind": _arch(block="transformer"),
    "drop_path that is no number": _arch(drop_path=float("nan")),
    "an unknown field": _arch(**{"x" * 100_000: 1}),
    "an arch that is a list": _ours(arch=[1]),
    "an arch that is null": _ours(arch=None),
    "no arch": _ours(arch="gone"),
    "a picture of a billion": _look(size=BIG),
    "a picture of nothing": _look(size=0),
    "a picture of -1": _look(size=-1),
    "a picture of letters": _look(size="large"),
    "a resize to a billion": _look(resize=BIG),
    "no mean": _look(mean="gone"),
    "a mean of nothing": _look(mean=[]),
    "a mean that is no number": _look(mean=[float("nan")] * 3),
    "a mean of a million": _look(mean=[0.5] * 10**6),
    "a mean of four": _look(mean=[0.5] * 4, std=[0.5] * 4),
    "a std of nothing": _look(std=[0.0] * 3),
    "a std of two": _look(std=[0.5] * 2),
    "an interpolation that is none": _look(interpolation="magic"),
    "a preprocess that is a text": _ours(preprocess="as usual"),
    "an unknown preprocess": _look(flip=True),
    "classes null": _ours(classes=None),
    "classes nested": _ours(classes=[["a"], ["b"], ["c"]]),
    "too few classes": _ours(classes=["a"]),
    "five million classes": _ours(classes=["a"] * 5 * 10**6),
    "a recipe that is a list": _ours(recipe=[1]),
    "metrics null": _ours(metrics=None),
    "no digest": _ours(sha256="gone"),
    "a digest that is a number": _ours(sha256=7),
    "our section null": lambda config: config | {"resnetkit": None},
    "our section a list": lambda config: config | {"resnetkit": [1]},
    "our section a text": lambda config: config | {"resnetkit": "yes"},
    "no object": lambda _: ["resnetkit"],
    "100,000 brackets": lambda _: b'{"resnetkit":' + b"[" * 100_000,
    "100,000 braces": lambda _: b'{"resnetkit":' * 100_000,
    "a number of 10,000 digits": lambda _: b'{"resnetkit":' + b"9" * 10_000 + b"}",
    "40 MB of blanks": lambda _: b'{"resnetkit":1}' + b" " * (40 << 20),
    "eight million lists": lambda _: b'{"resnetkit":[' + b"[]," * 8_000_000 + b"1]}",
    "no UTF-8": lambda _: b'{"resnetkit":"\xff"}',
    "cut": lambda config: json.dumps(config).encode()[:-40],
    "timm: a list for settings": lambda _: [1],
    "timm: a mean of letters": _timm(mean=["a", "b", "c"]),
    "timm: a mean that is an object": _timm(mean={"r": 0.5}),
    "timm: a mean that is nested": _timm(mean=[[0.5]] * 3),
    "timm: a mean that is infinite": _timm(mean=[float("inf")] * 3),
    "timm: a std of 0": _timm(std=[0, 0, 0]),
    "timm: a size of a billion": _timm(input_size=[3, BIG, BIG]),
    "timm: a size of one number": _timm(input_size=[224]),
    "timm: a size that is a text": _timm(input_size="224"),
    "timm: a crop of 0.0001": _timm(crop_pct=1e-4),
    "timm: a crop that is no number": _timm(crop_pct=float("nan")),
    "timm: another interpolation": _timm(interpolation="lanczos"),
    "timm: an interpolation that is a number": _timm(interpolation=3),
    "timm: a crop that squashes": _timm(crop_mode="squash"),
    "timm: labels that are numbers": _timm(label_names=[1, 2]),
    "timm: labels that are an object": _timm(label_names={"0": "a"}),
    "timm: too few labels": _timm(label_names=["a"]),
    "timm: a network that is a list": lambda _: {"architecture": ["resnet20"]},
    "timm: another network": lambda _: {"architecture": "resnet56"},
    "HF: labels in a list": _hugging_face(id2label=["a"]),
    "HF: labels nested": _hugging_face(id2label={"0": ["a"]}),
    "HF: several labels at once": _hugging_face(problem_type="multi_label_classification"),
    "HF: a regression": _hugging_face(problem_type="regression"),
    "HF: another problem": _hugging_face(problem_type=["x"]),
    "HF: another activation": _hugging_face(hidden_act="gelu"),
    "HF: a first stage that halves": _hugging_face(downsample_in_first_stage=True),
}
IMAGES: dict[str, object] = {
    "a list": [1],
    "a size of letters": {"size": "large", "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "a size of -1": {"size": {"shortest_edge": -1}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "a size of a billion": {"size": BIG, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    "a mean of letters": {"size": 32, "image_mean": "grey", "image_std": [0.5] * 3},
    "a mean that is no number": {"size": 32, "image_mean": [float("nan")] * 3, "image_std": [0.5] * 3},
    "a std of two": {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 2},
    "a factor of 0": {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 0},
    "another resampling": {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 1},
    "100,000 brackets": b'{"size":' + b"[" * 100_000,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, End]:
    """How the reading of each folder ends, all in one process."""
    root = tmp_path_factory.mktemp("settings")
    small = rk.create_model("resnet20", depths=(1, 1), widths=(8, 16), strides=(1, 2), stem_width=8, num_classes=3)
    look = Preprocess(32, (0.5,) * 3, (0.5,) * 3)
    ours = Classifier(small, look, ("a", "b", "c"), "resnet20", choose("cpu", "fp32")).save(root / "ours")
    safetensors.torch.save_file(dict(rk.create_model("resnet20").state_dict()), root / "model.safetensors")
    places = {}
    for number, (name, change) in enumerate(CONFIGS.items()):
        folder = places[name] = root / str(number)
        folder.mkdir()
        theirs = name.startswith(("timm", "HF"))
        shutil.copy(root / "model.safetensors" if theirs else ours / "model.safetensors", folder)
        content = change(json.loads((ours / "config.json").read_bytes()))
        (folder / "config.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    for number, (name, content) in enumerate(IMAGES.items()):
        folder = places[f"images: {name}"] = root / f"images{number}"
        folder.mkdir()
        shutil.copy(root / "model.safetensors", folder)
        (folder / "config.json").write_text('{"model_type": "resnet"}')
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / "preprocessor_config.json").write_bytes(text)
    found = read_outside("resnetkit.weights.load:load", list(places.values()))
    return {name: found[str(folder)] for name, folder in places.items()}


@pytest.mark.parametrize("name", [*CONFIGS, *(f"images: {name}" for name in IMAGES)])
def test_settings_that_cannot_be_are_refused(name: str, settings: dict[str, End]) -> None:
    said = refused(settings[name], 4)
    assert ("parameters and model.safetensors has" in said) == ("the file" in name and "other than" not in name)


def test_a_recipe_for_what_cannot_be_is_a_usage_error(cli) -> None:
    for flags in (
        ("--model.depths", 10**6, 1, 1),
        ("--model.depths", 9999, 1, 1),
        ("--model.widths", 65536, 65536, 65536),
        ("--model.stem-width", 10**9),
        ("--model.depths", *[1] * 40),
    ):
        done = cli("summary", "resnet20", *flags)
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "data", [{"name": "digits", "validation": 7.0}, {"name": "digits", "validation": float("nan")}]
)
def test_a_recipe_in_an_artefact_is_not_believed_either(data: dict, tmp_path: Path, cli) -> None:
    net = rk.create_model(
        "resnet20", depths=(1,), widths=(8,), strides=(1,), stem_width=8, in_channels=1, num_classes=10
    )
    names = tuple(map(str, range(10)))
    ours = Classifier(net, Preprocess(8, (0.5,), (0.5,)), names, "resnet20", choose("cpu", "fp32"), {"data": data})
    ours.save(tmp_path / "m")
    done = cli("evaluate", tmp_path / "m", "digits")
    assert done.code == 4, done.err
    assert "the model's recipe cannot be used in" in done.err
