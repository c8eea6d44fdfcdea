"""Makes the corpus of model files: one environment per version of torch, thrown away afterwards.

python tests/data/model_files/make.py [VERSION …]; needs uv, and Python 3.8, 3.10 and 3.11 on the PATH or where uv
finds them. The models are in write.py. Each environment downloads one to three gigabytes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from clean import clean

HERE = Path(__file__).resolve().parent

VERSIONS = {
    "1.5.1": ("3.8", "numpy==1.24.4"),
    "1.12.1": ("3.10", "numpy==1.26.4"),
    "2.4.1": ("3.11", "numpy==1.26.4"),
    "2.15.0": ("3.11", "numpy==2.4.6"),
}
"""By version of torch: the Python that it installs on, and a NumPy of its time."""


def make(version: str) -> None:
    """Write the files of one version of torch anew."""
    python, numpy = VERSIONS[version]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside if beside.exists() else shutil.which("uv"))
    target = HERE / version
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory(prefix="torch-") as folder:
        environment = Path(folder) / "env"
        interpreter = environment / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--python", python, environment], check=True)
        packages = [f"torch=={version}", numpy, "setuptools<80", "typing-extensions", "future"]
        subprocess.run([uv, "pip", "install", "--quiet", "--python", interpreter, *packages], check=True)
        # With -I nothing of this checkout gets in; the folder's own name gets into the files.
        subprocess.run([interpreter, "-I", HERE / "write.py", target], check=True, cwd=folder)
    for path in target.iterdir():
        clean(path)
    print(version, sum(path.stat().st_size for path in target.iterdir()), "bytes")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or VERSIONS:
        make(chosen)
