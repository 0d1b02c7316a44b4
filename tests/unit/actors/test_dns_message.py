"""The DNS question of a health check, and which datagrams are a reply to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.health.dns_message import is_reply, query, question

ROOT = question(".", "NS")
EXAMPLE = question("www.Example.com", "AAAA")
IDENTIFIER = 0xABCD
QUERY = query(IDENTIFIER, EXAMPLE)


def reply(flags: int = 0x8180, *, identifier: int = IDENTIFIER, questions: int = 1, asked: bytes = EXAMPLE) -> bytes:
    numbers = (identifier, flags, questions, 0, 0, 0)
    return b"".join(number.to_bytes(2) for number in numbers) + asked


def test_a_query_is_as_a_stub_resolver_sends_it() -> None:
    assert query(0x1234, ROOT).hex(" ", -2) == "1234 0100 0001 0000 0000 0000 0000 0200 01"
    assert EXAMPLE == b"\3www\7Example\3com\0" + b"\0\x1c" + b"\0\1"


@pytest.mark.parametrize("name", ["example.com", "example.com."])
def test_a_name_is_absolute_with_and_without_its_last_dot(name: str) -> None:
    assert question(name, "A") == b"\7example\3com\0\0\1\0\1"


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(reply(), id="no error"),
        pytest.param(reply(0x8182), id="SERVFAIL"),
        pytest.param(reply(0x8183), id="NXDOMAIN"),
        pytest.param(reply(0x8105), id="REFUSED"),
        pytest.param(reply(0x8380), id="truncated"),
        pytest.param(reply() + b"records" * 50, id="with records"),
        pytest.param(reply(asked=question("WWW.eXAMPLE.COM", "AAAA")), id="other capitals"),
    ],
)
def test_a_reply_to_the_question_is_one_whatever_its_code(datagram: bytes) -> None:
    assert is_reply(datagram, IDENTIFIER, EXAMPLE)


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(b"", id="empty"),
        pytest.param(reply()[:-1], id="cut off"),
        pytest.param(QUERY, id="the query itself"),
        pytest.param(reply(identifier=IDENTIFIER ^ 1), id="another id"),
        pytest.param(reply(0xA180), id="another opcode"),
        pytest.param(reply(questions=0), id="no question"),
        pytest.param(reply(questions=2), id="two questions"),
        pytest.param(reply(asked=question("www.example.org", "AAAA")), id="another name"),
        pytest.param(reply(asked=question("www.example.com", "A")), id="another type"),
        pytest.param(reply(asked=EXAMPLE[:-1] + b"\3"), id="another class"),
    ],
)
def test_any_other_datagram_is_no_reply(datagram: bytes) -> None:
    assert not is_reply(datagram, IDENTIFIER, EXAMPLE)


@given(st.binary(max_size=80))
def test_no_datagram_raises_an_error(datagram: bytes) -> None:
    is_reply(datagram, IDENTIFIER, EXAMPLE)


@pytest.mark.parametrize("position", [*range(2), *range(12, 12 + len(ROOT))])
@pytest.mark.parametrize("bit", range(8))
def test_one_wrong_bit_in_id_or_question_is_noticed(position: int, bit: int) -> None:
    broken = bytearray(reply(asked=ROOT))
    assert is_reply(bytes(broken), IDENTIFIER, ROOT)
    broken[position] ^= 1 << bit
    assert not is_reply(bytes(broken), IDENTIFIER, ROOT)
