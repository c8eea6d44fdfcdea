"""`query` on a port of its own, and a real browser that looks at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Error, Playwright, sync_playwright

from layerscope.functions.query.func import new
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services

INSTALL_SECONDS = 180.0
SYSTEM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def served(services: Services, inference: httpx.AsyncClient | None = None) -> Iterator[str]:
    """Serve what `query` answers from these services; yields its address."""
    function = new()
    function.attach(services, inference=inference)
    config = uvicorn.Config(application(function), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "query does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Start headless Chromium: Playwright's own, the system's, or one that Playwright installs once for the user.

    A machine that has none and cannot fetch it skips the test, unless it is CI.
    """
    with sync_playwright() as playwright:
        try:
            browser = _launched(playwright)
        except (Error, subprocess.SubprocessError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium, and it cannot be installed: {str(error).strip().splitlines()[0]}")
        try:
            yield browser
        finally:
            browser.close()


def _launched(playwright: Playwright) -> Browser:
    own = playwright.chromium.executable_path
    if Path(own).exists():
        return playwright.chromium.launch()
    for name in SYSTEM:
        if found := shutil.which(name):
            return playwright.chromium.launch(executable_path=found)
    command = [sys.executable, "-m", "playwright", "install", "chromium", "--only-shell"]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS, capture_output=True)
    return playwright.chromium.launch()
