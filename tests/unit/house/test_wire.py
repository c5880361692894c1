"""The wire stays compatible, and the committed stubs are what the .proto files say.

`wire_v1.json` holds every field's number and type as released. A field may be added (record it:
`python tests/unit/house/test_wire.py`, and read the diff); one that is there may never change.
"""

import json
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from grpc_tools import protoc
from packaging.requirements import Requirement

from pd_proto.v1 import generation_pb2, generation_pb2_grpc

REPO = Path(__file__).parents[3]
SNAPSHOT = Path(__file__).with_name("wire_v1.json")
TYPE_NAMES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def _field(field: FieldDescriptor) -> str:
    """Say in one line what must never change about a field; its name matters to JSON alone."""
    target = field.message_type or field.enum_type
    words = [
        "repeated" if field.is_repeated else "optional" if field.has_presence else "plain",
        target.full_name if target is not None else TYPE_NAMES[field.type],
        field.name,
    ]
    # proto3's `optional` makes a oneof of its own, which says nothing new.
    if field.containing_oneof is not None and not field.containing_oneof.name.startswith("_"):
        words.append(f"of {field.containing_oneof.name}")
    return " ".join(words)


def describe() -> dict[str, Any]:
    """Return the whole wire as plain data."""
    file = generation_pb2.DESCRIPTOR
    return {
        "package": file.package,
        "messages": {
            message.full_name: {str(f.number): _field(f) for f in message.fields}
            for message in file.message_types_by_name.values()
        },
        "enums": {
            enum.full_name: {str(value.number): value.name for value in enum.values}
            for enum in file.enum_types_by_name.values()
        },
        "methods": {
            method.full_name: " ".join(
                [
                    "stream" if method.client_streaming else "one",
                    method.input_type.full_name,
                    "->",
                    "stream" if method.server_streaming else "one",
                    method.output_type.full_name,
                ]
            )
            for service in file.services_by_name.values()
            for method in service.methods
        },
    }


def _snapshot() -> dict[str, Any]:
    loaded = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_nothing_released_has_changed() -> None:
    now = describe()
    for kind in ("messages", "enums"):
        for owner, entries in _snapshot()[kind].items():
            assert owner in now[kind], f"{owner} is gone; old peers still speak it"
            kept = {number: now[kind][owner].get(number) for number in entries}
            assert kept == entries, f"{owner} broke the wire; give a changed field a new number"
    for method, shape in _snapshot()["methods"].items():
        assert now["methods"].get(method) == shape


def test_additions_are_recorded() -> None:
    assert describe() == _snapshot(), "record the addition: python tests/unit/house/test_wire.py"


def test_committed_stubs_match_the_proto_files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.pb"
        code = protoc.main(
            [
                "protoc",
                f"-I{REPO / 'proto'}",
                f"--descriptor_set_out={out}",
                str(REPO / "proto" / "pd_proto" / "v1" / "generation.proto"),
            ]
        )
        assert code == 0
        compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    committed = descriptor_pb2.FileDescriptorProto()
    generation_pb2.DESCRIPTOR.CopyToProto(committed)
    # protoc spells out the names of fields in JSON, which follow from the fields' names.
    for message in compiled.message_type:
        for one in (message, *message.nested_type):  # a map's entries are a message of their own
            for field in one.field:
                field.ClearField("json_name")
    assert committed == compiled, "the stubs are stale; mend: make proto"


def test_declared_bounds_admit_only_versions_the_stubs_accept() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = generation_pb2_grpc.GRPC_GENERATED_VERSION
    parts = {**project["optional-dependencies"], "base": project["dependencies"]}
    for extra in ("server", "base"):
        for line in parts[extra]:
            requirement = Requirement(line)
            if requirement.name == "grpcio":
                lowest = [s.version for s in requirement.specifier if s.operator == ">="]
                assert lowest == [needed], f"[{extra}] must ask for grpcio>={needed}"


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(describe(), indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {SNAPSHOT.name}\n")
