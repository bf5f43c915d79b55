"""The protocol's messages, described here and made into classes when they are first needed.

One line a field, as a .proto file has it. Written from the public specifications:
https://github.com/kserve/open-inference-protocol (specification/protocol/inference_grpc.md), and for repository,
statistics, configuration and streams https://github.com/triton-inference-server/server (docs/protocol).

They live in a pool of their own: a program may hold another library's classes of the same messages, and protobuf
refuses two of one name in one pool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_SCHEMA = """
ServerLiveRequest
ServerLiveResponse
    bool live = 1
ServerReadyRequest
ServerReadyResponse
    bool ready = 1
ModelReadyRequest
    string name = 1
    string version = 2
ModelReadyResponse
    bool ready = 1

ServerMetadataRequest
ServerMetadataResponse
    string name = 1
    string version = 2
    repeated string extensions = 3
ModelMetadataRequest
    string name = 1
    string version = 2
ModelMetadataResponse
    string name = 1
    repeated string versions = 2
    string platform = 3
    repeated TensorMetadata inputs = 4
    repeated TensorMetadata outputs = 5
TensorMetadata
    string name = 1
    string datatype = 2
    repeated int64 shape = 3

ModelInferRequest
    string model_name = 1
    string model_version = 2
    string id = 3
    map InferParameter parameters = 4
    repeated InferInputTensor inputs = 5
    repeated InferRequestedOutputTensor outputs = 6
    repeated bytes raw_input_contents = 7
InferInputTensor
    string name = 1
    string datatype = 2
    repeated int64 shape = 3
    map InferParameter parameters = 4
    InferTensorContents contents = 5
InferRequestedOutputTensor
    string name = 1
    map InferParameter parameters = 2
InferParameter
    choice bool bool_param = 1
    choice int64 int64_param = 2
    choice string string_param = 3
    choice double double_param = 4
    choice uint64 uint64_param = 5
InferTensorContents
    repeated bool bool_contents = 1
    repeated int32 int_contents = 2
    repeated int64 int64_contents = 3
    repeated uint32 uint_contents = 4
    repeated uint64 uint64_contents = 5
    repeated float fp32_contents = 6
    repeated double fp64_contents = 7
    repeated bytes bytes_contents = 8
ModelInferResponse
    string model_name = 1
    string model_version = 2
    string id = 3
    map InferParameter parameters = 4
    repeated InferOutputTensor outputs = 5
    repeated bytes raw_output_contents = 6
InferOutputTensor
    string name = 1
    string datatype = 2
    repeated int64 shape = 3
    map InferParameter parameters = 4
    InferTensorContents contents = 5
ModelStreamInferResponse
    string error_message = 1
    ModelInferResponse infer_response = 2

ModelConfigRequest
    string name = 1
    string version = 2
ModelConfigResponse
    ModelConfig config = 1
ModelConfig
    string name = 1
    string platform = 2
    int32 max_batch_size = 4
    repeated ModelInput input = 5
    repeated ModelOutput output = 6
    string backend = 17
ModelInput
    string name = 1
    int32 data_type = 2
    repeated int64 dims = 4
ModelOutput
    string name = 1
    int32 data_type = 2
    repeated int64 dims = 3

ModelStatisticsRequest
    string name = 1
    string version = 2
ModelStatisticsResponse
    repeated ModelStatistics model_stats = 1
ModelStatistics
    string name = 1
    string version = 2
    uint64 last_inference = 3
    uint64 inference_count = 4
    uint64 execution_count = 5
    InferStatistics inference_stats = 6
InferStatistics
    StatisticDuration success = 1
    StatisticDuration fail = 2
    StatisticDuration queue = 3
    StatisticDuration compute_infer = 5
StatisticDuration
    uint64 count = 1
    uint64 ns = 2

RepositoryIndexRequest
    string repository_name = 1
    bool ready = 2
RepositoryIndexResponse
    repeated ModelIndex models = 1
ModelIndex
    string name = 1
    string version = 2
    string state = 3
    string reason = 4
RepositoryModelLoadRequest
    string repository_name = 1
    string model_name = 2
    map ModelRepositoryParameter parameters = 3
RepositoryModelLoadResponse
RepositoryModelUnloadRequest
    string repository_name = 1
    string model_name = 2
    map ModelRepositoryParameter parameters = 3
RepositoryModelUnloadResponse
ModelRepositoryParameter
    choice bool bool_param = 1
    choice int64 int64_param = 2
    choice string string_param = 3
    choice bytes bytes_param = 4
"""

_FIELD = re.compile(r"    (?:(repeated|map|choice) )?(\w+) (\w+) = (\d+)")
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


def classes() -> dict[str, Any]:
    """The class of each message, by its name."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="modelserve/inference.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_messages())
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}"))
        for message in file.message_type
    }


def _messages() -> Iterator[descriptor_pb2.DescriptorProto]:
    message = None
    for line in filter(None, _SCHEMA.splitlines()):
        if not line.startswith(" "):
            if message is not None:
                yield message
            message = descriptor_pb2.DescriptorProto(name=line)
            continue
        match = _FIELD.fullmatch(line)
        assert match is not None, line
        assert message is not None, line
        _add(message, *match.groups())
    assert message is not None
    yield message


def _add(message: descriptor_pb2.DescriptorProto, kind: str | None, of: str, name: str, number: str) -> None:
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind in {"repeated", "map"}:
        field.label = _Field.LABEL_REPEATED
    if kind == "map":
        _type(field, _entry(message, name, of))
        return
    _type(field, of)
    if kind == "choice":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0


def _entry(message: descriptor_pb2.DescriptorProto, name: str, of: str) -> str:
    """The message that a map by name is on the wire: a list of pairs."""
    entry = message.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    for number, (part, kind) in enumerate((("key", "string"), ("value", of)), 1):
        _type(entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL), kind)
    return f"{message.name}.{entry.name}"


def _type(field: descriptor_pb2.FieldDescriptorProto, of: str) -> None:
    if of in _SCALARS:
        field.type = _SCALARS[of]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{of}"
