"""The reader of .pth files reads tensors, and runs nothing whatever the file asks for."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest

from efficientnet.weights import WeightsError
from efficientnet.weights.torch_pickle import read_torch_file
from tests.torch_files import Name, Parameter, Storage, Tensor, torch_legacy, torch_zip

RANDOM = np.random.default_rng(0)
TENSORS = collections.OrderedDict(
    {
        "conv.weight": RANDOM.normal(size=(4, 3, 2, 2)).astype(np.float32),
        "bn.running_var": RANDOM.uniform(size=4).astype(np.float64),
        "half": RANDOM.normal(size=(2, 3)).astype(np.float16),
        "bn.num_batches_tracked": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
)
LAYOUTS = pytest.mark.parametrize("write", [torch_zip, torch_legacy])


def read(content):
    return read_torch_file(content, "model.pth")


def floats(key, values):
    values = np.asarray(values, np.float32)
    return Storage("FloatStorage", key, values.tobytes(), values.size)


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@LAYOUTS
def test_both_layouts_are_read(write):
    assert_equal(read(write(TENSORS)), TENSORS)


@LAYOUTS
def test_parameters_views_and_shared_storages_are_read(write):
    storage = floats("0", range(6))
    tree = {
        "view": Parameter(Tensor(storage, (2, 2), (1, 2), 1)),
        "end": Tensor(storage, (2,), (1,), 4),
    }
    found = read(write(tree))
    np.testing.assert_array_equal(found["view"], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(found["end"], [4, 5])


def test_bfloat16_becomes_float32():
    bits = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype("<u2")
    storage = Storage("BFloat16Storage", "0", bits.tobytes(), 2)
    found = read(torch_zip({"x": Tensor(storage, (2,))}))
    np.testing.assert_array_equal(found["x"], np.array([1.5, -2.0], np.float32))


@LAYOUTS
def test_the_averages_of_a_training_checkpoint_are_taken(write):
    last = {f"module.{name}": np.asarray(array + 1) for name, array in TENSORS.items()}
    ema = {f"module.{name}": array for name, array in TENSORS.items()}
    tree = {"epoch": 3, "arch": "tf_efficientnet_b0", "state_dict": last, "state_dict_ema": ema}
    assert_equal(read(write(tree)), TENSORS)
    del tree["state_dict_ema"]
    np.testing.assert_array_equal(read(write(tree))["half"], TENSORS["half"] + 1)


class Hostile:
    """Runs a command where a pickle is loaded."""

    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


@LAYOUTS
@pytest.mark.parametrize(
    "value",
    [
        Hostile(),
        {"inner": Hostile()},
        Name("os", "system"),
        Name("torch._utils", "_import_dotted_name"),
    ],
)
def test_nothing_is_run(write, value):
    if isinstance(value, Name):
        value = _Call(value)
    with pytest.raises(WeightsError, match=r"its pickle (calls|has the operation) .*"):
        read(write({"x": np.zeros(1, np.float32), "y": value}))


class _Call:
    def __init__(self, function):
        self.function = function

    def __reduce_ex__(self, protocol):
        return self.function, ("true",)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
        b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.",  # INST
        b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truet\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93(X\x04\x00\x00\x00truetR.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # BYTEARRAY8 of a terabyte
        b"\x80\x02}r\xff\xff\xff\xffh\x00.",  # a memo of 2^32 - 1
        b"\x80\x02" + b"\x85" * 5000 + b".",  # pops an empty stack
        b"\x80\x02)" + b"\x85" * 5000 + b")R.",  # calls a tuple in a tuple in ...
        b"\x80\x02I" + b"9" * 10000 + b"\n.",  # a number of ten thousand digits
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        b"\x80\x02N.",
        b"\x80\x02}",
        b"",
        b"no pickle",
    ],
)
def test_forged_programs_are_one_line(program):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(WeightsError, match=r"^cannot read model\.pth as a PyTorch file: [^\n]*$"):
        read(file.getvalue())


@LAYOUTS
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((10**12,), (0,), 0),  # endless by a stride of 0
        ((2, 2), (5, 1), 0),
        ((2,), (-1,), 1),
        ((2,), (1,), -1),
        ((2,), (1, 1), 0),
        ((2.0,), (1,), 0),
        ((True,), (1,), 0),
        ((2**62, 2**62), (1, 1), 0),
    ],
)
def test_a_view_beyond_its_storage_is_refused(write, shape, strides, offset):
    tree = {"x": Tensor(floats("0", range(6)), shape, strides, offset)}
    with pytest.raises(WeightsError, match=r"exceeds its storage|wrong shape"):
        read(write(tree))


@LAYOUTS
def test_a_storage_that_is_larger_than_the_file_is_refused_before_it_is_read(write):
    storage = Storage("FloatStorage", "0", b"\0" * 8, 2**40)
    with pytest.raises(WeightsError, match=r"expected 1099511627776|has 1099511627776|larger than"):
        read(write({"x": Tensor(storage, (2,))}))


def test_many_views_of_one_storage_do_not_fill_the_memory():
    storage = floats("0", range(1000))
    tree = {f"x{i}": Tensor(storage, (1000,), (1,)) for i in range(1000)}
    with pytest.raises(WeightsError, match="larger than the file"):
        read(torch_zip(tree))


def test_compressed_members_are_refused():
    content = torch_zip({"x": np.zeros(10**6, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 10**5
    with pytest.raises(WeightsError, match="compressed"):
        read(content)


@LAYOUTS
def test_a_truncated_file_is_one_line(write):
    content = write(TENSORS)
    for length in (0, 1, 14, 40, len(content) // 2, len(content) - 30):
        with pytest.raises(WeightsError, match=r"^cannot read model\.pth [^\n]*$"):
            read(content[:length])


def test_a_changed_byte_of_a_zip_is_noticed():
    content = bytearray(torch_zip(TENSORS))
    at = content.index(TENSORS["conv.weight"].tobytes())
    content[at] ^= 1
    with pytest.raises(WeightsError, match="damaged"):
        read(bytes(content))


def test_a_pickle_of_something_else_holds_no_tensors():
    with pytest.raises(WeightsError, match=r"a pickle that torch\.save did not write"):
        read(pickle.dumps({"x": 1}))
    with pytest.raises(WeightsError, match="no tensors by name"):
        read(torch_zip({"x": 1}))
