"""Writes protobuf by hand, wrong on purpose where a test asks for that: no library would write most of it."""

import struct

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_U64 = (1 << 64) - 1


def varint(number):
    """The number in groups of seven bits; a negative one as its 64-bit complement, as protobuf has it."""
    number &= _U64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(field, wire):
    return varint(field << 3 | wire)


def num(field, number):
    """An integer, enum or bool."""
    return tag(field, VARINT) + varint(int(number))


def blob(field, data):
    """Bytes, a string (as UTF-8) or a message that is written already."""
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return tag(field, BYTES) + varint(len(data)) + data


def f32(field, number):
    return tag(field, FIXED32) + struct.pack("<f", number)


def f64(field, number):
    return tag(field, FIXED64) + struct.pack("<d", number)


def each(field, messages):
    """A repeated field of messages or strings."""
    return b"".join(blob(field, message) for message in messages)


def packed(field, numbers):
    """A packed repeated integer field."""
    return blob(field, b"".join(varint(n) for n in numbers))


def nested(field, depth, innermost=b""):
    """One message in another in another, so many deep; written from the inside, in one pass."""
    heads, size = [], len(innermost)
    key = tag(field, BYTES)
    for _ in range(depth):
        head = key + varint(size)
        heads.append(head)
        size += len(head)
    return b"".join(reversed(heads)) + innermost
