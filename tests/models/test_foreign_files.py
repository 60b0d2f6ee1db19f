"""Files of weights as others write them: the same features, damaged ones named, and nothing in them run."""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import os
import pickle
import resource
import struct
import uuid
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from encoder_files import below, message, resnet, same_features, used, written
from infomax.models.foreign_files import LEGACY_MAGIC, _read_inert, read_tensors
from infomax.models.pretrained import open_encoder
from infomax.models.state_dicts import _tensor_dictionaries, find_encoder, parse_location

# Checkpoints as other libraries write them


class Attributes(dict):
    """Stands for a class of a library that is not installed, as lightning's AttributeDict."""


class Configuration:
    def __init__(self, **values):
        self.__dict__.update(values)


class Color(enum.Enum):
    RED = 1


BESIDE = {
    "namespace": lambda: argparse.Namespace(arch="resnet18", lr=0.1),
    "numpy scalar": lambda: numpy.float64(3.0),
    "numpy array": lambda: {"mean": numpy.arange(3.0), "names": numpy.array(["a", "b"], dtype=object)},
    "numpy random state": lambda: numpy.random.RandomState(0).get_state(),
    "own dictionary": lambda: Attributes(a=1, b=Attributes(c=2)),
    "own class": lambda: Configuration(a=Configuration(b=[1, 2]), path=Path("a")),
    "paths": lambda: {Path("a"): Path("b")},
    "default dictionary": lambda: collections.defaultdict(list, {"a": [1]}),
    "times": lambda: [datetime.datetime(2020, 1, 1), datetime.timedelta(3), datetime.date(2020, 1, 1)],
    "sets": lambda: ({1, 2}, frozenset({3}), collections.Counter("abc"), collections.deque([1])),
    "enum": lambda: {Color.RED: Color.RED},
    "function": lambda: nn.functional.relu,
    "decimal": lambda: (decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=3), complex(1, 2)),
    "partial": lambda: functools.partial(nn.functional.softmax, dim=1),
    "optimizer": lambda: torch.optim.SGD([torch.zeros(2)], 0.1),
    "size": lambda: (torch.Size([1, 2]), torch.float16, torch.device("cpu")),
    "cycle": lambda: (lambda table: table.update({"self": table}) or table)(Attributes()),
}


@pytest.fixture(scope="module")
def weights():
    """The weights of a ResNet-18, which no test changes."""
    return resnet().state_dict()


@pytest.mark.parametrize("layout", BESIDE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_beside_the_tensors_are_left_out(tmp_path, weights, layout, protocol):
    torch.save({"args": BESIDE[layout](), "state_dict": weights}, tmp_path / "file.pth", pickle_protocol=protocol)
    read = find_encoder(parse_location(str(tmp_path / "file.pth"))).weights
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())


@pytest.mark.parametrize("layout", ["namespace", "numpy scalar", "own class"])
def test_objects_in_a_file_of_the_old_format(tmp_path, layout, capsys):
    source = resnet()
    content = {"args": BESIDE[layout](), "state_dict": source.state_dict()}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same_features(open_encoder(tmp_path / "old.pth"), source)
    assert "without the objects of" in capsys.readouterr().err


def test_what_is_left_out_is_named(tmp_path, capsys):
    weights = resnet().state_dict() | {"fc.weight": torch.zeros(2, 2), "queue": torch.zeros(2)}
    open_encoder(written(tmp_path / "file.pth", {"args": argparse.Namespace(a=1), "model": weights}))
    objects, *others = capsys.readouterr().err.splitlines()
    assert objects.endswith(
        "file.pth: tensors alone are read, without the objects of argparse.Namespace around them, which are not run"
    )
    assert any(line.endswith("left out, as inference does not use them: fc, queue") for line in others)


def test_weights_inside_of_a_libraries_own_dictionary(tmp_path):
    source = resnet()
    file = written(tmp_path / "file.pth", {"model": Configuration(weights=Attributes(source.state_dict()))})
    assert same_features(open_encoder(file), source)


def test_a_whole_module(tmp_path):
    from torchvision.models import resnet18

    source = used(resnet18())
    file = written(tmp_path / "file.pth", {"net": nn.DataParallel(source)})
    encoder = open_encoder(file)
    source.fc = nn.Identity()
    assert same_features(encoder, source, 64)


def test_a_whole_module_and_complex_numbers_in_a_file_of_the_old_format(tmp_path):
    """Such a file has the source code of the module's classes beside them."""
    model, file = nn.Sequential(nn.Linear(2, 3)), tmp_path / "model.pth"
    content = {"model": model, "frequencies": torch.tensor([1 + 2j]), "arguments": argparse.Namespace()}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    read = read_tensors(file)
    assert torch.equal(dict(_tensor_dictionaries(read))["model."]["0.weight"], model[0].weight)
    assert torch.equal(read["frequencies"], content["frequencies"])


def children(source, *, pooling=True, activation=True):
    layers = [source.conv1, source.bn1, *([nn.ReLU()] * activation), *([nn.Identity()] * pooling)]
    return nn.Sequential(*layers, source.layer1, source.layer2, source.layer3, source.layer4, nn.AdaptiveAvgPool2d(1))


@pytest.mark.parametrize(
    ("stem", "pooling", "activation"),
    [("imagenet", True, True), ("cifar", True, True), ("cifar", False, True)],
)
def test_a_sequence_of_a_resnets_children(tmp_path, stem, pooling, activation):
    source = resnet(stem=stem)
    weights = children(source, pooling=pooling, activation=activation).state_dict()
    state = below("backbone.", weights) | {"projection_head.layers.0.weight": torch.zeros(2, 2)}
    file = written(tmp_path / "file.ckpt", {"state_dict": state, "hyper_parameters": Attributes(a=1)})
    assert same_features(open_encoder(file), source, 64)
    momentum = resnet(stem=stem, seed=1)
    state |= below("backbone_momentum.", children(momentum, pooling=pooling, activation=activation).state_dict())
    written(tmp_path / "file.ckpt", {"state_dict": state})
    assert same_features(open_encoder(f"{file}#backbone_momentum."), momentum, 64)


def test_a_sequence_that_no_encoder_here_has(tmp_path):
    source = resnet(stem="imagenet")
    weights = children(source, pooling=False).state_dict()
    assert "holds no such encoder" in message(written(tmp_path / "file.pth", weights))
    others = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).state_dict()
    assert "holds no such encoder" in message(written(tmp_path / "file.pth", others))


def test_weights_of_pretraining_alone_are_left_out(tmp_path, capsys):
    import timm

    source = timm.create_model("test_vit", num_classes=0).eval()
    extra = {"mask_token": torch.zeros(1, 1, 64), "decoder_embed.weight": torch.zeros(2, 2)}
    extra |= {"decoder_blocks.0.norm1.weight": torch.zeros(2), "decoder_pos_embed": torch.zeros(1)}
    file = written(tmp_path / "file.pth", {"model": source.state_dict() | extra})
    assert same_features(open_encoder(f"timm:test_vit@{file}"), source, 160)
    line = capsys.readouterr().err
    assert line.endswith("does not use them: mask_token, decoder_embed, decoder_blocks, decoder_pos_embed\n")
    for name in ("decoder.weight", "norm2.weight", "blocks.0.mask_token_2", "my_mask_tokens"):
        written(tmp_path / "file.pth", {"model": source.state_dict() | {name: torch.zeros(1)}})
        assert f"1 unexpected ({name})" in message(f"timm:test_vit@{file}")


def test_weights_of_half_precision(tmp_path):
    source = resnet()
    file = written(tmp_path / "file.pth", {name: value.half() for name, value in source.state_dict().items()})
    assert same_features(open_encoder(file), source.half().float())


# Files that are something else


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "Git LFS pointer"),
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>404", "is a web page"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "compressed by gzip"),
        (b"epoch 3\nloss 4\n", "is a text file"),
        (b"\xef\xbb\xbf{}", "nothing of it was run"),
        (bytes(range(256)) * 9, "nothing of it was run"),
        (b"\x80", "nothing of it was run"),
        (struct.pack("<Q", 50) + b"{}", "breaks off: 10 bytes, but its header alone takes 58"),
        (struct.pack("<Q", 2) + b"{x" + bytes(9), "its header is not that of a safetensors file"),
        (struct.pack("<Q", 9000) + b"{" + b"[" * 8999, "its header is not that of a safetensors file"),
    ],
)
@pytest.mark.parametrize("name", ["file.pth", "file.safetensors"])
def test_a_file_of_something_else_says_what_it_is(tmp_path, content, text, name):
    (tmp_path / name).write_bytes(content)
    assert text in message(tmp_path / name)


def test_archives_folders_and_pipes_are_no_checkpoints(tmp_path):
    import tarfile
    import zipfile

    (tmp_path / "a.txt").write_text("x")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a/b.txt", "x")
    assert "is a zip archive of other files (a/b.txt)" in message(tmp_path / "zip.pth")
    with tarfile.open(tmp_path / "tar.pth.tar", "w") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    assert "is a tar archive" in message(tmp_path / "tar.pth.tar")
    assert "is a folder" in message(f"timm:resnet18@{tmp_path}")
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is no regular file" in message(f"timm:resnet18@{tmp_path}/pipe.pth")


def test_a_torchscript_program_is_not_run(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        for name in ("file/constants.pkl", "file/data.pkl", "file/code/__torch__.py"):
            archive.writestr(name, "x")
    assert "is a TorchScript program" in message(tmp_path / "file.pt")


def test_the_format_is_told_by_the_content(tmp_path):
    source = resnet()
    written(tmp_path / "file.safetensors", source.state_dict())
    (tmp_path / "file.safetensors").rename(tmp_path / "file.bin")
    assert same_features(open_encoder(tmp_path / "file.bin"), source)
    torch.save(source.state_dict(), tmp_path / "file.safetensors")
    assert same_features(open_encoder(tmp_path / "file.safetensors"), source)


@pytest.mark.parametrize("layout", ["new", "old", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.99])
def test_a_file_that_breaks_off(tmp_path, layout, share):
    file = tmp_path / ("file.safetensors" if layout == "safetensors" else "file.pth")
    if layout == "old":
        torch.save({"a": argparse.Namespace(), "b": resnet().state_dict()}, file, _use_new_zipfile_serialization=False)
    else:
        written(file, resnet().state_dict())
    content = file.read_bytes()
    size = int(share * len(content))
    file.write_bytes(content[:size])
    text = message(file)
    if layout == "safetensors":
        assert f"breaks off: {size} of {len(content)} bytes" in text or "its header alone takes" in text
    elif layout == "new":
        assert f"breaks off: {size} of more than 447" in text or f"breaks off after {size} bytes" in text
    else:
        assert "breaks off" in text or "damaged" in text


# Pickles that would run something


class Call:
    """Is pickled as the call of a function with arguments."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def pickled(module, name, *arguments):
    """Returns a pickle that calls any function by its name, with arguments that are texts."""
    words = b"".join(b"X" + struct.pack("<I", len(word.encode())) + word.encode() for word in arguments)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + words + b"tR."


def archived(file, pickle_bytes, **records):
    """Writes a file of torch.save with this pickle."""
    import zipfile

    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": pickle_bytes, "byteorder": b"little", "version": b"3", **records}.items():
            archive.writestr(f"file/{name}", content)
    return file


DANGEROUS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("builtins", "exec"),
    ("__builtin__", "eval"), ("builtins", "getattr"), ("builtins", "__import__"), ("builtins", "open"),
    ("builtins", "setattr"), ("subprocess", "Popen"), ("importlib", "import_module"), ("runpy", "run_path"),
    ("pickle", "loads"), ("sys", "modules"), ("shutil", "rmtree"), ("pathlib", "Path.unlink"), ("types", "CodeType"),
    ("types", "FunctionType"), ("operator", "attrgetter"), ("functools", "reduce"), ("ctypes", "CDLL"),
    ("argparse", "FileType"), ("collections", "namedtuple"), ("codecs", "open"), ("_codecs", "decode"),
    ("copyreg", "add_extension"), ("logging.config", "dictConfig"), ("socket", "socket"), ("code", "interact"),
    ("argparse", "_sys.exit"), ("collections", "_sys.exit"), ("datetime", "sys.exit"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), DANGEROUS)
@pytest.mark.parametrize("old", [False, True])
def test_no_function_of_the_standard_library_is_called(tmp_path, module, name, old):
    command = f"__import__('os').mkdir({str(tmp_path / 'ran')!r})"
    content = pickled(module, name, command)
    if old:
        start = b"".join(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, 1001, {}))
        (tmp_path / "file.pth").write_bytes(start + content + pickle.dumps([], 2))
    else:
        archived(tmp_path / "file.pth", content)
    text = message(tmp_path / "file.pth")
    assert "nothing of it was run" in text
    assert "it asks for" in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.hub", "load"), ("torch", "load"), ("torch.serialization", "load"), ("torch._utils", "_flatten"),
        ("numpy", "load"), ("numpy.testing._private.utils", "runstring"), ("timm", "load"),
        ("infomax.runtime.files", "write_atomic"), ("torch.utils.cpp_extension", "load"), ("torch", "os.system"),
        ("numpy", "f2py.compile"),
    ],
)  # fmt: skip
def test_a_function_of_a_library_is_replaced_by_something_that_does_nothing(tmp_path, module, name, capsys):
    archived(tmp_path / "file.pth", pickled(module, name, str(tmp_path / "ran"), "x"))
    assert "holds no such encoder" in message(tmp_path / "file.pth")
    assert f"objects of {module}.{name} around" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_what_a_file_sets_on_a_class_stays_in_the_file(tmp_path):
    """BUILD sets attributes of whatever is on the stack: of classes and functions too, in a careless unpickler."""
    item = b"}X\x05\0\0\0builtX\x03\0\0\0yess"
    states = (item + b"b.", b"(N" + item + b"tb.")  # of __dict__, and of __slots__
    for module, name in (
        ("argparse", "Namespace"), ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "Size"), ("torch", "FloatStorage"), ("torch.nn.parameter", "Parameter"), ("torch", "float32"),
        ("infomax.models.foreign_files", "Placeholder"), ("builtins", "set"), ("_codecs", "encode"),
    ):  # fmt: skip
        for state in states:
            content = b"\x80\x02c" + f"{module}\n{name}\n".encode() + state
            message(archived(tmp_path / "file.pth", content))
    import argparse as a

    from infomax.models import foreign_files

    for thing in (
        a.Namespace,
        collections.OrderedDict,
        torch._utils._rebuild_tensor_v2,
        torch.Size,
        torch.nn.Parameter,
    ):
        assert not hasattr(thing, "built")
    assert not hasattr(foreign_files.Placeholder, "built")
    assert not hasattr(foreign_files._build_tensor, "built")


class Storage:
    """A storage of four numbers, as torch.save refers to it."""


def with_tensor(tmp_path, *arguments, count=4):
    """Writes a file with an object that torch refuses and a tensor that is rebuilt by these arguments."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(obj, Storage) else None

    buffer = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    content = {"a": argparse.Namespace(), "w": Call(rebuild, Storage(), *arguments, False, collections.OrderedDict())}
    Pickler(buffer, 2).dump(content)
    return archived(tmp_path / "file.pth", buffer.getvalue(), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})


def test_tensors_stay_inside_of_their_storage(tmp_path):
    tensor = read_tensors(with_tensor(tmp_path, 1, (1, 3), (3, 1)))["w"]
    assert tensor.tolist() == [[2, 3, 4]]
    for arguments in (
        (1, (4,), (1,)), (0, (5,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (-2,), (1,)), (0, (2, 2), (1,)),
        (0, (10**12,), (0,)), (0, (2**62,), (2**62,)), (2**70, (1,), (1,)), (0, (True,), (1,)), (0.0, (1,), (1,)),
        ("0", (1,), (1,)), (0, ("1",), (1,)), (10, (0,), (1,)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"holds more than tensors|is damaged"):
            read_tensors(with_tensor(tmp_path, *arguments))
    for count in (3, 5, 10**15, -1):
        with pytest.raises(ValueError, match=r"holds more than tensors|is damaged"):
            read_tensors(with_tensor(tmp_path, 0, (1,), (1,), count=count))


@pytest.mark.parametrize("old", [False, True])
def test_a_number_in_a_small_file_takes_no_memory(tmp_path, old):
    """pickle would get 16 bytes for each object up to the largest number of one, here 1.6 GB."""
    numbered = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.LONG_BINPUT + struct.pack("<I", 10**8) + b"."
    file = tmp_path / "file.pth"
    if old:
        numbers = (LEGACY_MAGIC, 1001, {})
        file.write_bytes(b"".join(pickle.dumps(number, protocol=2) for number in numbers) + numbered)
    else:
        archived(file, numbered)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(pickle.UnpicklingError, match="gives an object in its first . bytes the number 100000000$"):
        _read_inert(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6  # kilobytes


@settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data(), old=st.booleans(), beside=st.booleans())
def test_any_bytes_give_tensors_or_one_line(tmp_path_factory, data, old, beside):
    weights = {"conv.weight": torch.arange(8.0).reshape(2, 4), "bn.num_batches_tracked": torch.tensor(3)}
    buffer = io.BytesIO()
    torch.save(
        {"model": weights, **({"args": argparse.Namespace(lr=0.1)} if beside else {})},
        buffer,
        _use_new_zipfile_serialization=not old,
    )
    content = mutated(buffer.getvalue(), data)
    file = tmp_path_factory.getbasetemp() / "fuzzed.pth"
    file.write_bytes(content)
    opened_or_one_line(file)


def mutated(content: bytes, data) -> bytes:
    """Returns bytes with a few of them changed, left out or doubled."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(changed) - 1)))
        kind = data.draw(st.sampled_from(["set", "cut", "drop", "double"]))
        length = data.draw(st.integers(1, 9))
        if kind == "set":
            changed[place : place + length] = data.draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del changed[place:]
        elif kind == "drop":
            del changed[place : place + length]
        else:
            changed[place:place] = changed[place : place + length]
    return bytes(changed)


def opened_or_one_line(file):
    try:
        content = read_tensors(file)
    except ValueError as error:
        refusal = str(error)
    else:
        for path, table in _tensor_dictionaries(content):
            assert isinstance(path, str)
            assert all(isinstance(value, torch.Tensor) for value in table.values())
        return
    assert str(file) in refusal
    assert "\n" not in refusal


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=5000, suppress_health_check=list(HealthCheck))
@given(data=st.data(), layout=st.sampled_from([*BESIDE]), old=st.booleans())
def test_any_bytes_give_tensors_or_one_line_at_length(tmp_path_factory, data, layout, old):
    buffer = io.BytesIO()
    content = {"model": {"w": torch.arange(8.0)}, "args": BESIDE[layout]()}
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    file = tmp_path_factory.getbasetemp() / "fuzzed.pth"
    file.write_bytes(mutated(buffer.getvalue(), data))
    opened_or_one_line(file)
