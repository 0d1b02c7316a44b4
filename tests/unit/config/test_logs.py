"""Log lines: what they hold, and that none escapes the format."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from config.logs import configure
from config.settings import LogSettings

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What was logged to standard error so far; afterwards logging is as it was."""
    root = logging.getLogger()
    level, before = root.level, set(root.handlers)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)

    def read() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield read
    logging.captureWarnings(capture=False)
    for handler in set(root.handlers) - before:
        root.removeHandler(handler)
    root.setLevel(level)


def _objects(lines: Lines) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines()]


def test_a_text_line_holds_time_level_thread_logger_and_message(lines: Lines) -> None:
    configure(LogSettings())
    logging.getLogger("actors.writing.map_writer").warning("%s is full", "frontends")
    (line,) = lines()
    moment, rest = line.split(" ", 1)
    assert moment.endswith("Z")
    assert rest == "WARNING [MainThread] actors.writing.map_writer: frontends is full"


def test_a_json_line_is_one_object_with_its_traceback_in_a_field(lines: Lines) -> None:
    configure(LogSettings(format="json"))
    error = RuntimeError("first\nsecond")
    logging.getLogger("x").error('odd: "%s"', "\n\ud800", exc_info=error)
    (entry,) = _objects(lines)
    assert (entry["level"], entry["thread"], entry["logger"]) == ("error", "MainThread", "x")
    assert entry["message"] == 'odd: "\n\ud800"'
    assert entry["traceback"].endswith("RuntimeError: first\nsecond")


def test_a_thread_that_ends_by_an_exception_is_a_json_line(lines: Lines) -> None:
    configure(LogSettings(format="json"))
    thread = threading.Thread(target=lambda: 1 / 0, name="watcher")
    thread.start()
    thread.join()
    (entry,) = _objects(lines)
    assert (entry["level"], entry["message"]) == ("critical", "an exception ended the thread watcher: division by zero")
    assert "ZeroDivisionError" in entry["traceback"]


def test_an_uncaught_exception_and_a_warning_are_json_lines(lines: Lines) -> None:
    configure(LogSettings(format="json"))
    error = ValueError("bad")
    sys.excepthook(ValueError, error, None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    uncaught, warning = _objects(lines)
    assert uncaught["message"] == "uncaught exception: bad"
    assert warning["logger"] == "py.warnings"


def test_an_interrupt_is_not_logged(lines: Lines) -> None:
    configure(LogSettings(format="json"))
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not lines()


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_left_out(lines: Lines, level: str, count: int) -> None:
    configure(LogSettings(level=level))
    for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("x").log(severity, "hello")
    assert len(lines()) == count


def test_configuring_twice_writes_each_line_once(lines: Lines) -> None:
    configure(LogSettings())
    configure(LogSettings())
    logging.getLogger("x").info("hello")
    assert len(lines()) == 1


def test_libraries_do_not_drown_the_agent_at_debug(lines: Lines) -> None:
    configure(LogSettings(level="debug"))
    logging.getLogger("kubernetes.client.rest").debug("a whole answer")
    logging.getLogger("pykka").debug("a message")
    assert not lines()
