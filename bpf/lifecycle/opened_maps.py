"""Opens the maps of the attached build, for whoever reads what is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bpf.build import rows_layout
from bpf.errors import DatapathError
from bpf.lifecycle import pins
from bpf.lifecycle.attachments import active_build
from bpf.maps.pinned_maps import PinnedMaps


@contextmanager
def opened_maps(bpffs: Path) -> Iterator[PinnedMaps | None]:
    """The maps of the attached build; None when nothing is installed. Raises DatapathError when this process may not
    read them, or when another version has laid them out."""
    with readable(bpffs):
        maps = _open(bpffs)
    try:
        yield maps
    finally:
        if maps is not None:
            maps.close()


@contextmanager
def readable(bpffs: Path) -> Iterator[None]:
    """Raises DatapathError when this process may not read what the block reads."""
    try:
        yield
    except PermissionError as error:
        msg = f"{bpffs} cannot be read: {error}; this needs root, or CAP_BPF and CAP_NET_ADMIN"
        raise DatapathError(msg) from error


def _open(bpffs: Path) -> PinnedMaps | None:
    build = active_build(bpffs)
    if build is None:
        return None
    if not has_our_rows(bpffs, build):
        msg = f"another version installed build {build}, and lays out its rows differently; use its own run.py"
        raise DatapathError(msg)
    return PinnedMaps(bpffs / build / "maps")


def has_our_rows(bpffs: Path, build: str) -> bool:
    """Whether the build lays out its rows as this version does."""
    return (bpffs / build / (pins.LAYOUT + rows_layout())).exists()
