"""The form of a saved table: bytes that say what they are, and notice when they were damaged.

What must stand here: the form. What must not: files, and what the sections mean (that is core/table.pyx's, for both
seats).

    offset  bytes
    0       8      magic: 89 "FTCP" 0D 0A 1A; a transfer as text, or one that loses the eighth bit, spoils it
    8       4      version of this form, little endian, as every number up to the sections
    12      4      length of the head
    16      4      CRC-32 of the head
    20      n      the head: JSON, UTF-8
    20 + n         sections: name (8 bytes, zero padded), length (8), data in the writer's byte order, CRC-32 of all
                   three (4); the last is "end", without data

The head says how the data are to be read (byte order, sizes of the records), so data of another machine or of another
build are refused and not misread. Bytes are handed to `write`, or come from `readinto`, in pieces of at most PIECE
bytes.

Cost: a CRC-32 over everything, about 1 s for 2 GB.
"""

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory

import struct
import zlib

from fasttcp.errors import SnapshotError

__all__: list[str] = []        # for the table alone

MAGIC = b"\x89FTCP\r\n\x1a"
VERSION = 1
PREFACE = struct.Struct("<8sIII")
SECTION = struct.Struct("<8sQ")
CHECK = struct.Struct("<I")

cdef enum:
    PIECE = 1 << 22
    LONGEST_HEAD = 1 << 20


cdef int snapshot_begin(write, dict head) except -1:
    """Write what stands before the sections."""
    import json     # not at the top: 2 ms that only who saves needs

    text = json.dumps(head, separators=(",", ":")).encode()
    write(PREFACE.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text)
    return 0


cdef int snapshot_put(write, str name, const void *data, size_t length) except -1:
    """Write one section. The data must stay as they are meanwhile."""
    cdef size_t at = 0, piece
    head = SECTION.pack(name.encode(), length)
    check = zlib.crc32(head)
    write(head)
    while at < length:
        piece = min(length - at, <size_t>PIECE)
        view = PyMemoryView_FromMemory(<char *>data + at, piece, PyBUF_READ)
        check = zlib.crc32(view, check)
        write(view)
        at += piece
    write(CHECK.pack(check))
    return 0


cdef int snapshot_end(write) except -1:
    return snapshot_put(write, "end", NULL, 0)


cdef class SnapshotReader:
    """Where a reading stands."""


cdef SnapshotReader snapshot_open(readinto, file):
    """Read up to the sections. SnapshotError when these are not the bytes of a table, or of one that cannot be read
    here."""
    cdef SnapshotReader reader = SnapshotReader.__new__(SnapshotReader)
    reader.readinto = readinto
    reader.file = file
    magic, version, length, check = PREFACE.unpack(_read(reader, PREFACE.size, "the head"))
    if magic != MAGIC:
        raise SnapshotError("this is no saved table", file, 0)
    if version != VERSION:
        raise SnapshotError(f"form {version} of a saved table, this fasttcp reads form {VERSION}", file, 8)
    if length > LONGEST_HEAD:
        raise SnapshotError(f"a head of {length} bytes cannot be", file, 12)
    text = _read(reader, length, "the head")
    if zlib.crc32(text) != check:
        raise SnapshotError("the head is damaged: its checksum is wrong", file, PREFACE.size)
    import json

    try:
        reader.head = dict(json.loads(text))
    except (ValueError, TypeError) as fault:
        raise SnapshotError(f"the head is no JSON object: {fault}", file, PREFACE.size) from None
    return reader


cdef bytes _read(SnapshotReader reader, size_t length, what):
    data = bytearray(length)
    _fill(reader, memoryview(data), what)
    return bytes(data)


cdef int _fill(SnapshotReader reader, view, what) except -1:
    while view:
        n = reader.readinto(view)
        if not n:
            raise SnapshotError(f"the file ends within {what}", reader.file, reader.offset)
        reader.offset += n
        view = view[n:]
    return 0


cdef size_t snapshot_next(SnapshotReader reader, str name) except? 0:
    """The length of the section that comes now, which must have this name; its data are to be taken next."""
    cdef size_t at = reader.offset
    found, length = SECTION.unpack(_read(reader, SECTION.size, f"section {name!r}"))
    if found != name.encode().ljust(8, b"\0"):
        raise SnapshotError(f"section {name!r} was expected, here is {found!r}", reader.file, at)
    if length >= 1 << 62:
        raise SnapshotError(f"section {name!r} cannot have {length} bytes", reader.file, at)
    return length


cdef int snapshot_take(SnapshotReader reader, str name, void *data, size_t length) except -1:
    """Read the data of the section that snapshot_next has announced, and check them."""
    cdef size_t begun = reader.offset, at = 0, piece
    check = zlib.crc32(SECTION.pack(name.encode(), length))
    while at < length:
        piece = min(length - at, <size_t>PIECE)
        view = PyMemoryView_FromMemory(<char *>data + at, piece, PyBUF_WRITE)
        _fill(reader, view, f"section {name!r}")
        check = zlib.crc32(view, check)
        at += piece
    (expected,) = CHECK.unpack(_read(reader, CHECK.size, f"section {name!r}"))
    if check != expected:
        raise SnapshotError(f"section {name!r} is damaged: its checksum is wrong", reader.file, begun)
    return 0


cdef int snapshot_done(SnapshotReader reader) except -1:
    """The sections are complete and nothing follows them."""
    cdef size_t at
    cdef size_t length = snapshot_next(reader, "end")
    if length:
        raise SnapshotError("section 'end' has data", reader.file, reader.offset)
    snapshot_take(reader, "end", NULL, 0)
    at = reader.offset
    if reader.readinto(bytearray(1)):
        raise SnapshotError("something follows the end of the table", reader.file, at)
    return 0
