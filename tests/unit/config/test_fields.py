"""Reading untrusted mappings: every fault has its path, what is wrong and what is allowed."""

from __future__ import annotations

import pytest

from config.input import values
from config.input.faults import MAX_FAULTS, Report
from config.input.fields import Fields


def read(raw: object, known: tuple[str, ...] | None = None) -> tuple[Fields, Report]:
    report = Report()
    return Fields(raw, "spec", report, known), report


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ({"n": 0}, "spec.n: 0 is wrong; it must be a whole number from 1 to 9"),
        ({"n": True}, "spec.n: true is wrong; it must be a whole number from 1 to 9"),
        ({"n": "5"}, "spec.n: '5' is wrong; it must be a whole number from 1 to 9"),
        ({"n": {}}, "spec.n: an empty mapping is wrong; it must be a whole number from 1 to 9"),
        ({"n": "x" * 61}, f"spec.n: '{'x' * 40}'... (61 characters) is wrong; it must be a whole number from 1 to 9"),
        ([], "spec: an empty list is wrong; it must be a mapping"),
    ],
)
def test_a_fault_names_path_value_and_what_is_allowed(raw: object, fault: str) -> None:
    fields, report = read(raw)
    assert fields.integer("n", 1, 9) is None
    assert report.all_faults() == (fault,)


def test_null_counts_as_absent() -> None:
    fields, report = read({"n": None})
    assert (fields.has("n"), fields.integer("n", 1, 9), fields.boolean("n", True)) == (False, None, True)
    assert report.all_faults() == ()


def test_a_wrong_entry_of_a_list_is_named_by_its_index() -> None:
    fields, report = read({"names": ["a", 7]})
    assert fields.read("names", values.list_of(values.text, "names")) is None
    assert report.all_faults() == ("spec.names[1]: 7 is wrong; it must be a string",)


def test_an_unknown_field_is_not_a_fault_and_names_a_similar_one() -> None:
    _, report = read({"prot": 1, "port": 2, "zzz": 3}, known=("port", "protocol"))
    assert [str(each) for each in report.unknown] == [
        "spec.prot: is unknown (did you mean port?); it must be one of port, protocol",
        "spec.zzz: is unknown; it must be one of port, protocol",
    ]
    assert report.all_faults() == ()


def test_a_hostile_object_cannot_fill_the_log() -> None:
    report = Report()
    for number in range(MAX_FAULTS + 5):
        report.fault(f"a{number}", "is wrong")
    assert len(report.all_faults()) == MAX_FAULTS + 1
    assert report.all_faults()[-1] == "and 5 more faults"
