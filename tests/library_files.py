"""What a shared library's file says of itself: ELF, Mach-O and PE, as far as tests of ours ask."""

import re
import struct
from dataclasses import dataclass

__all__ = ["LibraryFile"]


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A library.

    Attributes:
        kind: "elf", "mach-o" or "pe".
        machine: "x86_64" or "aarch64".
        exports: names of its functions that others may call.
        needs: names of the libraries that it loads.
        oldest_system: the highest version it asks for, of glibc or macOS; () for Windows.
        signed: it carries a signature, without which macOS on arm64 loads nothing.
    """

    kind: str
    machine: str
    exports: frozenset[str]
    needs: frozenset[str]
    oldest_system: tuple[int, ...] = ()
    signed: bool = False

    @classmethod
    def read(cls, data: bytes) -> "LibraryFile":
        """Read a library's bytes."""
        if data[:4] == b"\x7fELF":
            return _read_elf(data)
        if data[:4] == b"\xcf\xfa\xed\xfe":
            return _read_mach_o(data)
        assert data[:2] == b"MZ", "neither ELF nor Mach-O nor PE"
        return _read_pe(data)


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _read_elf(data: bytes) -> LibraryFile:
    (machine,) = struct.unpack_from("<H", data, 18)
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    # of each section: type, offset, size, and the section of its names
    sections = []
    for i in range(count):
        head = struct.unpack_from("<IIQQQQII", data, table + i * size)
        sections.append((head[1], head[4], head[5], head[6]))
    exports, needs = set(), set()
    for kind, offset, length, link in sections:
        names = sections[link][1]
        if kind == 11:  # dynamic symbols
            for at in range(offset, offset + length, 24):
                name, _, _, section = struct.unpack_from("<IBBH", data, at)
                if section:
                    exports.add(_text(data, names + name))
        if kind == 6:  # the dynamic section
            for at in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<QQ", data, at)
                if tag == 1:
                    needs.add(_text(data, names + value))
    versions = re.findall(rb"\0GLIBC_([\d.]+)(?=\0)", data)
    return LibraryFile(
        "elf",
        {62: "x86_64", 183: "aarch64"}[machine],
        frozenset(exports),
        frozenset(needs),
        max(tuple(int(part) for part in version.split(b".")) for version in versions),
    )


def _read_mach_o(data: bytes) -> LibraryFile:
    machine, _, _, count = struct.unpack_from("<IIII", data, 4)
    exports, needs, oldest, signed = set(), set(), (0, 0), False
    at = 32
    for _ in range(count):
        command, size = struct.unpack_from("<II", data, at)
        if command == 0x2:  # symbols
            first, number, names, _ = struct.unpack_from("<IIII", data, at + 8)
            for place in range(first, first + number * 16, 16):
                name, kind = struct.unpack_from("<IB", data, place)
                if kind & 0x1F == 0xF:  # external and defined, not private
                    exports.add(_text(data, names + name).removeprefix("_"))
        if command == 0xC:  # a library that it loads
            needs.add(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        if command == 0x32:  # built for
            (version,) = struct.unpack_from("<I", data, at + 12)
            oldest = (version >> 16, version >> 8 & 255)
        signed = signed or command == 0x1D
        at += size
    arch = {0x0100000C: "aarch64", 0x01000007: "x86_64"}[machine]
    return LibraryFile("mach-o", arch, frozenset(exports), frozenset(needs), oldest, signed)


def _read_pe(data: bytes) -> LibraryFile:
    (head,) = struct.unpack_from("<I", data, 60)
    assert data[head : head + 4] == b"PE\0\0"
    machine, num_sections = struct.unpack_from("<HH", data, head + 4)
    (optional_size,) = struct.unpack_from("<H", data, head + 20)
    optional = head + 24
    sections = []
    for i in range(num_sections):
        at = optional + optional_size + i * 40
        sections.append(struct.unpack_from("<IIII", data, at + 8))

    def place(address: int) -> int:
        """Where in the file an address of the loaded library lies."""
        for size, start, stored, offset in sections:
            if start <= address < start + max(size, stored):
                return int(address - start + offset)
        raise AssertionError(f"no section holds {address:#x}")

    export_table, _, import_table, _ = struct.unpack_from("<IIII", data, optional + 112)
    number, _, names = struct.unpack_from("<III", data, place(export_table) + 24)
    exports = [
        _text(data, place(struct.unpack_from("<I", data, place(names) + 4 * i)[0]))
        for i in range(number)
    ]
    needs, at = [], place(import_table)
    while name := struct.unpack_from("<I", data, at + 12)[0]:
        needs.append(_text(data, place(name)).lower())
        at += 20
    arch = {0x8664: "x86_64", 0xAA64: "aarch64"}[machine]
    return LibraryFile("pe", arch, frozenset(exports), frozenset(needs))
