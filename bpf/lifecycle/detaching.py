"""Taking everything of ours out of the kernel (`run.py detach`)."""

from __future__ import annotations

from pathlib import Path

from bpf import libbpf
from bpf.build import HOOKS
from bpf.lifecycle import pins


def detach(bpffs: Path) -> list[str]:
    """Removes every link, program and map of ours. Returns one line for each thing that it removed."""
    if not pins.holds_pins(bpffs):
        return []
    removed = []
    links = bpffs / pins.LINKS
    # Stop redirecting first, and only then stop translating back: no process must ever see a backend's address.
    for hook in reversed(HOOKS):
        for path in (links / hook, *pins.former_links(links / hook)):
            if pins.is_pin(path):
                with libbpf.opened_pin(path) as link:
                    libbpf.link_detach(link)  # removing the pin is not enough when a running agent holds the link open
                path.unlink()
                removed.append(f"link {path.name}")
    for build in [*pins.builds(bpffs), pins.LOADING]:
        removed += [
            f"{path.parent.name.removesuffix('s')} {path.name} of build {build}"
            for path in pins.remove_build(bpffs / build)
        ]
    removed += [f"map {path.relative_to(bpffs)}" for path in pins.remove_sockets(bpffs)]
    pins.remove_directory(bpffs)
    return removed
