"""requirements.lock, from which the image is built, is what `make lock` makes of requirements.txt."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def pins(text: str) -> set[str]:
    """`name==version`, with names as PyPI writes them today."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in found}


def test_what_we_ask_for_is_locked_in_the_same_version() -> None:
    assert pins((ROOT / "requirements.txt").read_text()) <= pins(LOCK)


def test_every_package_has_a_hash_and_none_comes_from_elsewhere() -> None:
    entries = re.split(r"\n(?=[\w.-]+==)", LOCK)[1:]
    assert len(entries) == len(pins(LOCK))
    assert all("--hash=sha256:" in each for each in entries)
    assert not re.findall(r"^(?:-|[^#\n]*://)", LOCK, re.MULTILINE)
