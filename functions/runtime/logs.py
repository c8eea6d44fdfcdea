"""Logs of a process as JSON lines: what the system says, and of libraries only what is wrong."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

SILENT: Final = ("kafka", "urllib3")
"""Libraries that have several lines for every connection that fails, of which the system says one itself."""


def configure() -> None:
    """Write logs to standard error from now on, warnings of Python among them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("layerscope").setLevel(logging.INFO)
    logging.captureWarnings(True)
    for library in SILENT:
        logging.getLogger(library).setLevel(logging.CRITICAL)


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
