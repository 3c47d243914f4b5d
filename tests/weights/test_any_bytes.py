"""Any bytes as weights, settings or a list of classes: a result or one of our errors, and nothing else."""

import contextlib
import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resnetkit as rk
from resnetkit.artefact import load_classifier
from resnetkit.classifier import Classifier
from resnetkit.errors import ResnetkitError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import choose
from resnetkit.machine.documents import validated
from resnetkit.weights.foreign import HuggingFaceImages, HuggingFaceModel, Timm
from resnetkit.weights.hints import read_classes
from resnetkit.weights.naming import match_arch
from resnetkit.weights.pickles import read_pickle
from resnetkit.weights.tensorfile import read_tensors

FEW = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in a text of a pickle, says pickletools
CODES = st.sampled_from(
    [
        bytes([code])
        for code in b"(.0125FGIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x93\x94)"
    ]
)
WORDS = st.sampled_from(
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n",
        b"cposix\nsystem\n",
        b"X\x07\0\0\0storage",
        b"X\x01\0\0\x000",
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ",
        b"K\x00K\x04\x85K\x01\x85",
        b"q\x00",
        b"h\x00",
    ]
)
PROGRAMS = st.lists(CODES | WORDS | st.binary(max_size=3), max_size=25).map(b"".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small artefact, and room for what is drawn."""
    net = rk.create_model("resnet20", depths=(1,), widths=(8,), strides=(1,), stem_width=8, num_classes=2)
    ours = Classifier(net, Preprocess(8, (0.5,) * 3, (0.5,) * 3), ("a", "b"), "resnet20", choose("cpu", "fp32"))
    return ours.save(tmp_path_factory.mktemp("any"))


def _read(file: Path) -> None:
    with contextlib.suppress(ResnetkitError):
        found = read_tensors(file)
        assert all(isinstance(value, torch.Tensor) for value in found.tensors.values())
        match_arch(found.tensors, file=file)


@FEW
@given(st.binary(max_size=600) | st.binary(max_size=300).map(lambda tail: b"PK\x03\x04" + tail))
def test_any_bytes_are_weights_or_refused(folder: Path, content: bytes) -> None:
    (folder / "w").write_bytes(content)
    _read(folder / "w")


@FEW
@given(PROGRAMS)
def test_any_pickle_is_weights_or_refused(folder: Path, program: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_pickle(io.BytesIO(b"\x80\x02" + program + b"."))
    with zipfile.ZipFile(folder / "w", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}X\x01\0\0\0a" + program + b"s.")
        archive.writestr("a/data/0", struct.pack("<4f", 1, 2, 3, 4))
    _read(folder / "w")


@FEW
@given(st.data(), st.booleans())
def test_weights_with_bytes_changed_are_read_or_refused(folder: Path, data: st.DataObject, zipped: bool) -> None:
    stream = io.BytesIO()
    torch.save({"fc.weight": torch.ones(2, 3)}, stream, _use_new_zipfile_serialization=zipped)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(patch)] = patch
    (folder / "w").write_bytes(content)
    _read(folder / "w")


ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4", "C64", 7]) | VALUES,
        "shape": st.lists(st.integers(-1, 5), max_size=10) | VALUES,
        "data_offsets": st.sampled_from([[0, 16], [0, 0], [16, 0], [0, 2**60]]) | VALUES,
    }
)


@FEW
@given(
    st.dictionaries(st.sampled_from(["conv1.weight", "fc.weight", "__metadata__", ""]), ENTRIES | VALUES, max_size=3)
)
def test_any_header_of_safetensors_is_read_or_refused(folder: Path, header: dict) -> None:
    text = json.dumps(header).encode()
    (folder / "w").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    _read(folder / "w")


SHAPES = st.lists(st.integers(0, 4), max_size=5)
PARTS = st.sampled_from(
    ["module", "model", "encoder", "layer1", "0", "conv1", "fc", "1", "weight", "resnet", "embedder"]
)


@FEW
@given(
    st.dictionaries(st.lists(PARTS, min_size=1, max_size=4).map(".".join), SHAPES, max_size=5), SHAPES, st.booleans()
)
def test_any_names_and_shapes_are_a_network_or_refused(names: dict, first: list, headless: bool) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in names.items()} | {"conv1.weight": torch.zeros(first)}
    with contextlib.suppress(ResnetkitError):
        match_arch(tensors, file="f", headless=headless)


@FEW
@given(st.data())
def test_any_settings_of_ours_are_read_or_refused(folder: Path, data: st.DataObject) -> None:
    text = (folder / "config.json").read_bytes()
    config = json.loads(text)
    saved = config["resnetkit"]
    place = data.draw(st.sampled_from([config, saved, saved["arch"], saved["preprocess"]]))
    place[data.draw(st.sampled_from(list(place)))] = data.draw(VALUES)
    try:
        (folder / "config.json").write_text(json.dumps(config))
        with contextlib.suppress(ResnetkitError):
            load_classifier(folder, device="cpu", precision="fp32")
    finally:
        (folder / "config.json").write_bytes(text)


@FEW
@given(st.sampled_from([Timm, HuggingFaceModel, HuggingFaceImages]), st.data())
def test_any_settings_of_others_are_read_or_refused(schema: type, data: st.DataObject) -> None:
    names = st.sampled_from(list(schema.model_fields))
    values = VALUES | st.just([0.5] * 3) | st.just([3, 32, 32]) | st.just({"shortest_edge": 32}) | st.just({"0": "a"})
    found = data.draw(st.dictionaries(names, values, max_size=6))
    with contextlib.suppress(ValueError, ResnetkitError):
        about = Timm.of(found) if schema is Timm else validated(schema, found)
        if isinstance(about, HuggingFaceModel):
            about.refuse_others()
            about.classes(2)
        elif isinstance(about, HuggingFaceImages):
            about.preprocess(3)
        else:
            about.preprocess()


@FEW
@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-16", "surrogatepass")))
def test_any_list_of_classes_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "names.txt").write_bytes(content)
    with contextlib.suppress(ResnetkitError):
        assert all(read_classes(folder / "names.txt"))
