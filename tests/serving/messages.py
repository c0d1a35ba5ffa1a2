"""TensorFlow Serving's messages, as its .proto files declare them, as far as the tests use them.

They are built with protobuf's own descriptors, so that no package of TensorFlow Serving's is needed; its
field numbers are from tensorflow_serving/apis: model.proto, predict.proto, prediction_log.proto.
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "serving_test"  # a message's name does not travel with it


@cache
def message_class(name: str) -> Any:
    """ModelSpec, PredictRequest, PredictResponse, PredictLog or PredictionLog."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{PACKAGE}.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=["tensorflow/core/framework/tensor.proto"],
    )
    types = file.message_type
    _message(types, "ModelSpec", (1, "name", "string"), (3, "signature_name", "string"))
    spec = (1, "model_spec", f"{PACKAGE}.ModelSpec")
    request = _message(types, "PredictRequest", spec)
    _tensors(request, "PredictRequest", 2, "inputs")
    response = _message(types, "PredictResponse", (2, *spec[1:]))
    _tensors(response, "PredictResponse", 1, "outputs")
    _message(types, "PredictLog", (1, "request", f"{PACKAGE}.PredictRequest"))
    _message(types, "PredictionLog", (6, "predict_log", f"{PACKAGE}.PredictLog"))
    pool = descriptor_pool.Default()
    pool.Add(file)
    return pool


def _message(parent: Any, name: str, *fields: tuple[int, str, str]) -> Any:
    made = parent.add(name=name)
    for number, field, kind in fields:
        made.field.add(name=field, number=number, label=1, **_type(kind))
    return made


def _tensors(message: Any, owner: str, number: int, field: str) -> None:
    """Adds map<string, tensorflow.TensorProto> `field`."""
    entry = f"{field.capitalize()}Entry"
    pair = ((1, "key", "string"), (2, "value", "tensorflow.TensorProto"))
    _message(message.nested_type, entry, *pair).options.map_entry = True
    kind = _type(f"{PACKAGE}.{owner}.{entry}")
    message.field.add(name=field, number=number, label=3, **kind)


def _type(kind: str) -> dict[str, Any]:
    return {"type": 9} if kind == "string" else {"type": 11, "type_name": f".{kind}"}
