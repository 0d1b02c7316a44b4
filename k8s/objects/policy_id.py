"""The id of a policy in the kernel's maps: the one that an annotation asks for, or one derived from the uid. Pure."""

from __future__ import annotations

import hashlib

from config.input.fields import Fields
from config.input.values import MAX_UINT32

SERVICE_ID_ANNOTATION = "balancing.elf.io/serviceId"
MAX_POLICY_ID = MAX_UINT32
"""Kernel rows have 32 bits for it."""


def read_policy_id(metadata: Fields) -> int | None:
    """The id that the annotation asks for; None when it is absent or faulty."""
    annotations = metadata.mapping("annotations")
    if annotations is None:
        return None
    return annotations.integer(SERVICE_ID_ANNOTATION, 1, MAX_POLICY_ID, quoted=True)


def derived_policy_id(kind: str, uid: str, name: str) -> int:
    """The same on every node and after every restart, and never 0."""
    seed = uid or f"{kind}/{name}"
    return int.from_bytes(hashlib.blake2b(seed.encode(errors="replace"), digest_size=4).digest()) or 1
