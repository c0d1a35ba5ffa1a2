"""Write files as `torch.save` does, of both layouts, without PyTorch."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np

PROTOCOL = 2
MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
}


class Name:
    """A function or class by name, whether it exists or not."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only its name is written")


class Storage:
    def __init__(self, kind, key, content, count):
        self.kind, self.key, self.content, self.count = kind, key, content, count


class Tensor:
    """A tensor as a pickle describes it: a view of a storage."""

    def __init__(self, storage, shape, strides=None, offset=0):
        self.storage, self.shape, self.offset = storage, tuple(shape), offset
        self.strides = strides or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor


class Pickler(pickle._Pickler):
    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file, legacy):
        super().__init__(file, PROTOCOL)
        self.storages, self.legacy = {}, legacy

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages[value.key] = value
        extra = (None,) if self.legacy else ()
        return ("storage", Name("torch", value.kind), value.key, "cpu", value.count, *extra)

    def save_name(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        self.memoize(value)

    def save_tensor(self, value):
        arguments = (value.storage, value.offset, value.shape, value.strides)
        arguments += (False, collections.OrderedDict())
        self.save_reduce(Name("torch._utils", "_rebuild_tensor_v2"), arguments, obj=value)

    def save_parameter(self, value):
        arguments = (value.tensor, True, collections.OrderedDict())
        self.save_reduce(Name("torch._utils", "_rebuild_parameter"), arguments, obj=value)

    dispatch[Name] = save_name
    dispatch[Tensor] = save_tensor
    dispatch[Parameter] = save_parameter


def to_tensors(tree):
    """Replace the arrays of nested dicts by tensors, each with a storage of its own."""
    count = 0

    def convert(value):
        nonlocal count
        if isinstance(value, dict):
            return type(value)((key, convert(item)) for key, item in value.items())
        if not isinstance(value, np.ndarray):
            return value
        count += 1
        kind = STORAGES[str(value.dtype)]
        storage = Storage(kind, str(count), np.ascontiguousarray(value).tobytes(), value.size)
        return Tensor(storage, value.shape)

    return convert(tree)


def torch_zip(tree, *, compression=zipfile.ZIP_STORED):
    """The content of a file as torch 1.6 and later write it."""
    text, program = _pickled(to_tensors(tree), legacy=False)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", text)
        archive.writestr("archive/byteorder", "little")
        for key, storage in program.storages.items():
            archive.writestr(f"archive/data/{key}", storage.content)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def torch_legacy(tree):
    """The content of a file as earlier ones write it."""
    text, program = _pickled(to_tensors(tree), legacy=True)
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    head = [pickle.dumps(value, PROTOCOL) for value in (MAGIC, 1001, machine)]
    keys = sorted(program.storages)
    stored = [
        struct.pack("<q", program.storages[key].count) + program.storages[key].content
        for key in keys
    ]
    return b"".join([*head, text, pickle.dumps(keys, PROTOCOL), *stored])


def _pickled(tree, *, legacy):
    file = io.BytesIO()
    program = Pickler(file, legacy)
    program.dump(tree)
    return file.getvalue(), program
