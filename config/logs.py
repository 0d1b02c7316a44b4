"""How the agent logs: to standard error, as text for people or as one JSON object on each line.

It owns the root logger's handlers and Python's hooks for uncaught exceptions, so that those are log lines as well.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from types import TracebackType

from config.settings import LogSettings

_TEXT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s [%(threadName)s] %(name)s: %(message)s"
_TIME = "%Y-%m-%dT%H:%M:%S"
_LEAST_LEVELS = {
    "kubernetes": logging.INFO,
    "pykka": logging.WARNING,
    "urllib3": logging.INFO,
}
"""Logger of a library -> the lowest level that is logged. Below it, a library logs whole answers of the API server, or
the start and end of each actor, which we log ourselves."""

_log = logging.getLogger(__name__)


def configure(settings: LogSettings) -> None:
    """Replaces any earlier configuration of logging."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    formatter = JsonFormatter(datefmt=_TIME) if settings.format == "json" else logging.Formatter(_TEXT, _TIME)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(max(level, least))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread_failure


class JsonFormatter(logging.Formatter):
    """time, level, thread, logger, message; `traceback` and `stack` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = record.stack_info
        return json.dumps(entry)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # whoever pressed Ctrl-C knows it
        _log.critical("uncaught exception: %s", error, exc_info=(kind, error, traceback))


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
        name = failure.thread.name if failure.thread else "unknown"
        info = (failure.exc_type, failure.exc_value, failure.exc_traceback)
        _log.critical("an exception ended the thread %s: %s", name, failure.exc_value, exc_info=info)
