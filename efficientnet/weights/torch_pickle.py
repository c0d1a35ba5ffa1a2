"""Read the tensors of a PyTorch `.pth` file without PyTorch, and without running anything from it.

A pickle is a program for a stack machine that may call any function by name. This module has a machine
of its own for the few operations that `torch.save` writes for tensors in dicts and lists. It calls nothing:
an operation, a function or a type of storage that is not listed here is an error. Storages are checked
against the file's size before they are read.

Two layouts: a zip of `NAME/data.pkl` and `NAME/data/KEY`, and before torch 1.6 five pickles in a row (a
magic number, the protocol, the machine, the tensors, the keys of the storages), then for each storage
its number of elements (int64) and its elements.
"""

import functools
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from efficientnet.weights.containers import TORCH, identify_file
from efficientnet.weights.matching import WeightsError

LEGACY_PROTOCOL = 1001

# Types of storage. bfloat16 is the upper half of float32.
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
REBUILDS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
# Entries of training checkpoints that hold the weights, in the order of preference.
STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model")


class TorchFileError(ValueError):
    """A file that is not tensors as `torch.save` writes them."""


class _Global(NamedTuple):
    """A function or class that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        text = f"{self.module}.{self.name}"
        return text if text.isprintable() and len(text) < 80 else ascii(text[:80])


class _Storage(NamedTuple):
    """A storage that a pickle names."""

    kind: str
    key: str
    elements: int


class _View(NamedTuple):
    """A tensor that a pickle describes: a view of a storage; offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def check(self) -> None:
        """Check that the tensor lies in its storage."""
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(map(_is_count, numbers)):
            raise TorchFileError(f"a tensor of storage {self.storage.key} has a wrong shape")
        sides = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * stride for n, stride in sides)
        # A stride of 0 repeats elements: a small file could describe an endless tensor.
        elements = math.prod(self.shape)
        if elements > self.storage.elements or (elements and last >= self.storage.elements):
            raise TorchFileError(
                f"a tensor of shape {self.shape} exceeds its storage of {self.storage.elements} elements"
            )


def read_torch_file(content: bytes, source: str) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict.

    Args:
      content: of a file that `torch.save` wrote, of either layout.
      source: name of the file, for the error.

    Returns:
      Arrays by name, views of few copies of the content. The averages of a training checkpoint come
      before its last weights. Names are without the prefix `module.` of a parallel model; bfloat16
      becomes float32.

    Raises:
      WeightsError: the file is damaged, holds anything but tensors and plain values, or no tensors.
    """
    found = identify_file(io.BytesIO(content))
    if found != TORCH:
        raise WeightsError(f"cannot read {source} as a PyTorch file: it is {found}")
    try:
        layout = _read_zip if content[:2] == b"PK" else _read_legacy
        tree, read, order = layout(content)
        named = _state_dict(tree)
        if not named:
            raise TorchFileError("it holds no tensors by name; save model.state_dict()")
        _check_sizes(named.values(), len(content))
        read = functools.cache(read)
        return {name: _to_array(view, read, order) for name, view in named.items()}
    except (
        *(TorchFileError, zipfile.BadZipFile, NotImplementedError, EOFError, struct.error),
        *(ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError),
    ) as error:
        reason = str(error) if isinstance(error, TorchFileError) else "it is damaged"
        raise WeightsError(f"cannot read {source} as a PyTorch file: {reason}") from error


def _state_dict(tree: Any) -> dict[str, _View]:
    for _ in range(len(STATE_DICTS)):
        inner = next((tree[key] for key in STATE_DICTS if isinstance(tree.get(key), dict)), None)
        if inner is None:
            break
        tree = inner
    named = {name: view for name, view in tree.items() if isinstance(view, _View)}
    if named and all(name.startswith("module.") for name in named):
        named = {name.removeprefix("module."): view for name, view in named.items()}
    return named


# -- the two layouts --------------------------------------------------------------------------------


def _read_zip(content: bytes) -> tuple[Any, Callable[[_Storage], bytes], str]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise TorchFileError("a member is compressed; torch.save does not compress")
    if sum(info.file_size for info in entries.values()) > len(content):
        raise TorchFileError("its members are larger than the file")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise TorchFileError(f"it holds {len(pickles)} files data.pkl, expected 1")
    root = pickles[0].removesuffix("data.pkl")
    swapped = f"{root}byteorder" in entries and archive.read(f"{root}byteorder") == b"big"

    def read(storage: _Storage) -> bytes:
        return archive.read(f"{root}data/{storage.key}")

    return _Machine(io.BytesIO(archive.read(pickles[0]))).run(), read, ">" if swapped else "<"


def _read_legacy(content: bytes) -> tuple[Any, Callable[[_Storage], bytes], str]:
    file = io.BytesIO(content)
    _, protocol, machine = (_Machine(file).run() for _ in range(3))
    if protocol != LEGACY_PROTOCOL:
        raise TorchFileError(f"its protocol is {protocol!r}, expected {LEGACY_PROTOCOL}")
    program = _Machine(file)
    tree, keys = program.run(), _Machine(file).run()
    order = "<" if machine.get("little_endian", True) else ">"
    stored = {}
    for key in keys:
        storage = program.storages[key]
        (count,) = struct.unpack(f"{order}q", file.read(8))
        size = storage.elements * np.dtype(STORAGES[storage.kind]).itemsize
        if count != storage.elements or size > len(content) - file.tell():
            raise TorchFileError(
                f"storage {key} has {storage.elements} elements; the file says {count} and ends in it"
            )
        stored[key] = file.read(size)
    return tree, lambda storage: stored[storage.key], order


def _to_array(view: _View, read: Callable[[_Storage], bytes], order: str) -> np.ndarray:
    storage = view.storage
    dtype = np.dtype(order + STORAGES[storage.kind])
    content = read(storage)
    if len(content) != storage.elements * dtype.itemsize:
        raise TorchFileError(
            f"storage {storage.key} has {len(content)} bytes, expected {storage.elements} elements of {dtype}"
        )
    array = np.frombuffer(content, dtype)[view.offset :]
    array = np.lib.stride_tricks.as_strided(
        array, view.shape, [n * dtype.itemsize for n in view.strides], writeable=False
    )
    if storage.kind == "BFloat16Storage":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _check_sizes(views: Iterable[_View], available: int) -> None:
    """Check tensors before any of them is read: many views of one storage could fill the memory."""
    size = 0
    for view in views:
        view.check()
        size += math.prod(view.shape) * np.dtype(STORAGES[view.storage.kind]).itemsize
    if size > available:
        raise TorchFileError("its tensors are larger than the file")


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**48


# -- the machine ------------------------------------------------------------------------------------

_MARK = object()


class _Machine:
    """Execute one pickle, in data alone.

    Attributes:
      storages: those that the pickle names, by key.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.storages: dict[str, _Storage] = {}
        self._file = file
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the object that the pickle builds, and leave the file after it."""
        for opcode, argument, _ in pickletools.genops(self._file):
            if opcode.name in _PUSHED:
                self._stack.append(_PUSHED[opcode.name](argument))
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise TorchFileError(
                    f"its pickle has the operation {opcode.name}; save model.state_dict()"
                )
        (result,) = self._stack
        return result

    def _pop_to_mark(self) -> list[Any]:
        start = len(self._stack) - 1 - self._stack[::-1].index(_MARK)
        items = self._stack[start + 1 :]
        del self._stack[start:]
        return items

    def _pop_tuple(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def _set_items(self, items: list[Any]) -> None:
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_Global(module, name))

    def _persistent(self) -> None:
        kind, given, key, _, count, *view = self._stack.pop()
        if kind != "storage" or given.module != "torch" or given.name not in STORAGES:
            raise TorchFileError(f"its pickle refers to a storage of type {given}; refused")
        if view not in ([], [None]):
            raise TorchFileError(
                "a storage is a view of another; save the weights with a newer torch"
            )
        if not isinstance(key, str) or not _is_count(count):
            raise TorchFileError("a storage has no key and size")
        storage = _Storage(given.name, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise TorchFileError(f"storage {key} is described twice")
        self._stack.append(storage)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global):
            raise TorchFileError("its pickle calls what is no function")
        if function not in REBUILDS:
            raise TorchFileError(f"its pickle calls {function}; only tensors are read")
        if function.name == "OrderedDict":
            self._stack.append(dict((arguments or ((),))[0]))
        elif function.name == "_rebuild_parameter":
            self._stack.append(arguments[0])
        else:
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, _Storage):
                raise TorchFileError("a tensor has no storage")
            self._stack.append(_View(storage, offset, tuple(shape), tuple(strides)))


_PUSHED: Mapping[str, Callable[[Any], Any]] = {
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "MARK": lambda _: _MARK,
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "GLOBAL": lambda text: _Global(*text.split(" ", 1)),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
        lambda value: value,
    ),
}
_OPERATIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda m, _: m._stack.append(tuple(m._pop_to_mark())),
    "TUPLE1": lambda m, _: m._pop_tuple(1),
    "TUPLE2": lambda m, _: m._pop_tuple(2),
    "TUPLE3": lambda m, _: m._pop_tuple(3),
    "APPEND": lambda m, _: m._stack[-2].append(m._stack.pop()),
    "APPENDS": lambda m, _: (items := m._pop_to_mark(), m._stack[-1].extend(items))[1],
    "SETITEM": lambda m, _: m._set_item(),
    "SETITEMS": lambda m, _: m._set_items(m._pop_to_mark()),
    "BINPUT": lambda m, index: m._memo.update({index: m._stack[-1]}),
    "LONG_BINPUT": lambda m, index: m._memo.update({index: m._stack[-1]}),
    "MEMOIZE": lambda m, _: m._memo.update({len(m._memo): m._stack[-1]}),
    "BINGET": lambda m, index: m._stack.append(m._memo[index]),
    "LONG_BINGET": lambda m, index: m._stack.append(m._memo[index]),
    "BINPERSID": lambda m, _: m._persistent(),
    "REDUCE": lambda m, _: m._reduce(),
    "STACK_GLOBAL": lambda m, _: m._stack_global(),
    "BUILD": lambda m, _: m._stack.pop(),  # attributes of an OrderedDict, such as _metadata
}
