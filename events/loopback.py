"""This machine's own addresses: whoever speaks to them goes straight there, whatever proxy the environment names."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this machine itself."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # it is no URL
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
