"""One DNS question, and whether a datagram is a reply to it (RFC 1035, section 4.1). Pure."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("!6H")
"""Id, flags, and the numbers of questions and of records in three sections."""
_TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
_CLASS_IN = 1
_IS_REPLY, _OPCODE, _RECURSION_DESIRED = 0x8000, 0x7800, 0x0100


def question(name: str, kind: str) -> bytes:
    """Returns the question section. `name` is absolute, with or without the last dot, and its labels have 63 letters at
    most. Raises KeyError for a type that `spec.backend.healthCheck` does not allow."""
    labels = [label.encode("ascii") for label in name.split(".") if label]
    encoded = b"".join(bytes([len(label)]) + label for label in labels)
    return encoded + b"\0" + struct.pack("!2H", _TYPES[kind], _CLASS_IN)


def query(identifier: int, question_section: bytes) -> bytes:
    """Returns the datagram that a stub resolver would send. `question_section` is as `question` returns it."""
    return _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0) + question_section


def is_reply(datagram: bytes, identifier: int, question_section: bytes) -> bool:
    """Whether the datagram is a reply to this query. Its response code and its records do not matter."""
    end = _HEADER.size + len(question_section)
    if len(datagram) < end:
        return False
    found, flags, questions, *_ = _HEADER.unpack_from(datagram)
    if found != identifier or not flags & _IS_REPLY or flags & _OPCODE or questions != 1:
        return False
    # A server may spell the name with other capitals. `lower` changes nothing else, since the lengths of labels, the
    # type and the class are smaller numbers than any letter.
    return datagram[_HEADER.size : end].lower() == question_section.lower()
