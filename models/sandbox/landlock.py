"""Landlock: a process gives up, for good, every file that it does not name. Linux only, without privileges.

The layout of the structures is that of <linux/landlock.h>; https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG = 1 << 7, 1 << 8
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_ON_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_READ: Final = _READ_FILE | _READ_DIR
_WRITE: Final = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE
_TCP: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11
_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights over files a version of Landlock has; newer ones have 16."""


@dataclass(frozen=True, slots=True)
class Access:
    """What stays open: files and folders with all in them, to read, to read and write, and devices to use."""

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    devices: tuple[Path, ...] = ()


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 if none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))))


def restrict(access: Access) -> int:
    """Give up every file but these, and TCP where the kernel has that; return the version of Landlock in force.

    It holds for the calling thread and all that it starts later, and cannot be taken back. Paths that do not exist are
    passed over.

    Raises:
        OSError: the kernel has no Landlock, or does not allow it.
    """
    abi = version()
    if abi == 0:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    handled = (1 << _BITS.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", handled, _TCP if abi >= 4 else 0, _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _call(_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        _allow(ruleset, access.read, _READ & handled)
        _allow(ruleset, access.write, (_READ | _WRITE) & handled)
        _allow(ruleset, access.devices, (_READ | _WRITE_FILE | _IOCTL) & handled)
        _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return abi


def _allow(ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            allowed = rights if stat.S_ISDIR(os.fstat(opened).st_mode) else rights & _ON_FILES
            rule = struct.pack("=Qi", allowed, opened)
            _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
        finally:
            os.close(opened)


def _call(number: int, *arguments: object) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
