"""YAML and JSON from outside: what is refused, and that no file can exhaust us."""

from __future__ import annotations

import pytest

from config.input.parsing import FileFault, parse_json, parse_yaml

MERGES = "a0: &a0 {k0: 1, k1: 1, k2: 1, k3: 1, k4: 1, k5: 1, k6: 1, k7: 1, k8: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"a: 1\nb: [\n", "line 3: does not parse", id="not closed"),
        pytest.param(b"a: 1\na: 2\n", "line 2: does not parse: key 'a' appears twice", id="a key twice"),
        pytest.param(b"a: \x00", "does not parse", id="a zero byte"),
        pytest.param(b"ok: 1\nb: \xff", "line 2: is not UTF-8 text", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="nested lists"),
        pytest.param(b"- " * 100_000, "nested too deeply", id="nested entries"),
        pytest.param(b"a: " + b"9" * 5000, "does not parse", id="a huge number"),
        pytest.param(b"a: 2026-13-45", "does not parse: month", id="no such date"),
        pytest.param(b"a: !!timestamp x", "does not parse", id="no time"),
        pytest.param(
            b"a: !!python/object:os.system {}",
            "line 1: does not parse: could not determine a constructor",
            id="a tag that runs code",
        ),
        pytest.param(b"? [a]\n: b", "does not parse", id="a list as a key"),
        pytest.param(MERGES.encode(), "merges (<<) more than 4096 keys", id="too many merges"),
    ],
)
def test_a_file_that_does_not_parse_says_where_and_what(data: bytes, says: str) -> None:
    with pytest.raises(FileFault) as caught:
        parse_yaml(data)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_merge_keys_work_and_may_be_overridden() -> None:
    text = "base: &base {a: 1, b: 2}\nx: &x {<<: *base, b: 3}\ny: {<<: *x, a: 4}"
    base = {"a": 1, "b": 2}
    assert parse_yaml(text.encode()) == [{"base": base, "x": {"a": 1, "b": 3}, "y": {"a": 4, "b": 3}}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('{"a": 1,\n}', "line 2: does not parse", id="not closed"),
        pytest.param('{"a": 1, "a": 2}', "key 'a' appears twice", id="a key twice"),
        pytest.param("[" * 100_000, "nested too deeply", id="nested lists"),
        pytest.param("9" * 5000, "does not parse", id="a huge number"),
        pytest.param("", "line 1: does not parse", id="empty"),
    ],
)
def test_a_json_file_that_does_not_parse_says_so(text: str, says: str) -> None:
    with pytest.raises(FileFault) as caught:
        parse_json(text.encode())
    assert says in str(caught.value)


def test_aliases_are_shared_not_copied() -> None:
    bomb = "a: &a [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1 or ''}, *a{n - 1 or ''}]" for n in range(1, 60))
    (document,) = parse_yaml(bomb.encode())
    assert isinstance(document, dict) and len(document) == 60


def test_empty_documents_are_null() -> None:
    assert parse_yaml(b"") == []
    assert parse_yaml(b"---\n---\na: 1\n") == [None, {"a": 1}]
