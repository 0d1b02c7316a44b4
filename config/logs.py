"""What log lines look like: text for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from config.settings import LogSettings

_TEXT = "%(asctime)s %(levelname)-7s %(threadName)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """Every record, tracebacks included, is one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(settings: LogSettings) -> None:
    """Sets up the root logger, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # Pykka logs each actor's birth and death; ours say what matters of that.
    logging.getLogger("pykka").setLevel(logging.WARNING)
