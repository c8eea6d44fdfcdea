"""What processes try in `test_sandbox`: small, so that each child starts fast."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from layerscope.models.inspection_report import Inspection
from layerscope.models.sandbox.confinement import Level, Sandbox, confine


def read(path: str) -> str:
    return Path(path).read_text()


def write(path: str) -> str:
    Path(path).write_text("written")
    return Path(path).read_text()


def end_at(path: Path, architecture: str | None, images: str | None) -> Inspection:
    """Read a model file, and end the process at one whose name asks for it."""
    if path.stem == "end":
        os._exit(1)
    from layerscope.models.inspection import inspect  # torch, which the other children do without

    return inspect(path, architecture, images)


def rename(source: str, target: str) -> None:
    Path(source).rename(target)


def connect(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return "connected"


def connect_to_path(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return "connected"


def use_pair() -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"still here")
        return theirs.recv(32)


def fork() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def run_program() -> str:
    return subprocess.run(["/bin/echo", "ran"], capture_output=True, check=True).stdout.decode()


def become_a_program() -> None:
    os.execv("/bin/true", ["true"])


def use_io_uring() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(425, 8, ctypes.create_string_buffer(120))
    return ctypes.get_errno()


def trace(pid: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace(16, pid, None, None)  # PTRACE_ATTACH
    return ctypes.get_errno()


def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def use_thread() -> list[str]:
    done: list[str] = []
    thread = threading.Thread(target=done.append, args=("threaded",))
    thread.start()
    thread.join()
    return done


def spin() -> None:
    """Compute without end."""
    while True:
        pass


def fill_memory(megabytes: int) -> int:
    held = []
    try:
        for _ in range(megabytes // 64):
            held.append(bytearray(64 * 2**20))
    except MemoryError:
        return len(held) * 64
    return -1


def compute() -> tuple[float, int]:
    import torch
    from torch import nn

    with torch.no_grad():
        torch.manual_seed(3)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        return float(network(torch.ones(2, 3, 32, 32)).sum()), torch.get_num_threads()


def save_and_load(folder: str) -> bool:
    import torch

    torch.save(torch.arange(4), Path(folder) / "tensor.pt")
    return bool((torch.load(Path(folder) / "tensor.pt", weights_only=True) == torch.arange(4)).all())


def read_onnx_file(path: str) -> int:
    from layerscope.models.formats.onnx_graph.reader import read_onnx

    return len(read_onnx(Path(path)).graph.nodes)


def work(folder: str, upload: str) -> tuple[tuple[float, int], bool, int]:
    return compute(), save_and_load(folder), read_onnx_file(upload)


def confining_seconds(folder: str) -> float:
    start = time.perf_counter()
    confine(Sandbox((Path(folder),)))
    return time.perf_counter() - start


def environment() -> str:
    """Return what can be found of the environment, now and as it was at the start."""
    return f"{dict(os.environ)} {Path('/proc/self/environ').read_text()}"


def kernel_without() -> Level:
    return Level(False, "", False, (), ("files are open: this kernel has no Landlock",))


def limits() -> dict[str, int]:
    return {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in ("CORE", "FSIZE", "DATA")}
