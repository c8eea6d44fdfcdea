"""Who an upload is: dataset, model and version, a pure function of its key in the bucket `models` and of nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from layerscope.schemas.digests import sha256

MODEL_EXTENSIONS: Final = (".pth", ".pt", ".safetensors", ".onnx", ".ckpt", ".bin", ".pt2")
"""As people's tools give them; what a file is, its first bytes say."""
SIDECARS: Final = {
    ".history.json": "history",
    ".history.csv": "history_csv",
    ".history.jsonl": "history_jsonl",
    ".tfevents": "tfevents",
    ".architecture.json": "architecture",
    ".input.json": "input",
}
"""How the key of a sidecar ends, and the kind of file that it then is."""
RULE: Final = (
    "A model's key is DATASET/MODEL/VERSION.EXT or DATASET/model_ID_vVERSION.EXT: names of 1 to 64 letters, digits, "
    "'.', '_', '=' or '-', beginning with a letter or digit; EXT is pth, pt, safetensors, onnx, ckpt, bin or pt2; what was "
    "logged in training lies beside it, with EXT history.json, history.csv, history.jsonl or tfevents, what a state "
    "dict belongs to with EXT architecture.json, and which images a model takes with EXT input.json"
)
NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._=-]{0,63}"

_NAME = re.compile(NAME_PATTERN)
_OLDER_FORM = re.compile(rf"model_(?P<model>{NAME_PATTERN})_v(?P<version>{NAME_PATTERN})")


class KeyRefused(ValueError):
    """An upload's key breaks the naming rule; the message says which part does and what the rule is."""

    code: Final = "bad-key"
    hint: Final = "aws s3 mv the object to a key such as s3://models/digits/my-model/1.safetensors"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """One model version of one dataset; `subject` is how events and people write it."""

    dataset: str
    model: str
    version: str

    def __post_init__(self) -> None:
        for part in (self.dataset, self.model, self.version):
            if not is_name(part):
                raise ValueError(
                    f"{part!r} is not a name: 1 to 64 letters, digits, '.', '_', '=' or '-', the first a letter or digit"
                )

    @property
    def subject(self) -> str:
        """Return `<dataset>/<model>/<version>`."""
        return f"{self.dataset}/{self.model}/{self.version}"

    @classmethod
    def parse(cls, subject: str) -> Identity:
        """Read an identity from `<dataset>/<model>/<version>`.

        Raises:
            ValueError: the subject is not of that form.
        """
        parts = subject.split("/")
        if len(parts) != 3:
            raise ValueError(f"{subject!r} is not DATASET/MODEL/VERSION")
        return cls(*parts)


@dataclass(frozen=True, slots=True)
class UploadKey:
    """What a key in the bucket `models` names: a model file, or (with `sidecar`) a sidecar of one."""

    identity: Identity
    sidecar: str | None = None


def is_name(text: str) -> bool:
    """Tell whether `text` may be the name of a dataset, a model or a version."""
    return _NAME.fullmatch(text) is not None


def identify(key: str) -> UploadKey:
    """Read the identity from a key of the bucket `models`.

    Raises:
        KeyRefused: the key breaks the rule; the message is one sentence for the uploader.
    """
    folder, _, file = key.rpartition("/")
    for ending, kind in SIDECARS.items():
        if file.endswith(ending):
            return UploadKey(_identity(key, folder, file.removesuffix(ending)), sidecar=kind)
    extension = next((e for e in MODEL_EXTENSIONS if file.endswith(e)), None)
    if extension is None:
        raise KeyRefused(f"The key {_shown(key)} does not end in a model extension. {RULE}.")
    return UploadKey(_identity(key, folder, file.removesuffix(extension)))


def is_folder_marker(key: str, size: int) -> bool:
    """Tell whether an object is what clients put where they show an empty folder: no upload, and no fault of anybody's."""
    return size == 0 and key.endswith("/")


def subject_of_key(key: str) -> str:
    """Return the subject of an event about an object: its identity's, or one of its own if the key breaks the rule."""
    try:
        return identify(key).identity.subject
    except KeyRefused:
        return f"_refused/{sha256(key.encode('utf-8', 'surrogateescape'))[:32]}"


def _identity(key: str, folder: str, stem: str) -> Identity:
    older = _OLDER_FORM.fullmatch(stem)
    parts = [folder, older["model"], older["version"]] if older and "/" not in folder else [*folder.split("/"), stem]
    if older and not folder:
        example = f"digits/{key}"
        raise KeyRefused(
            f"The key {_shown(key)} lies at the top of the bucket: the folder that names its dataset is missing, as in "
            f"{_shown(example)}. {RULE}."
        )
    if len(parts) != 3:
        raise KeyRefused(f"The key {_shown(key)} has {key.count('/') + 1} parts where 3 are needed. {RULE}.")
    for part in parts:
        if not is_name(part):
            raise KeyRefused(f"In the key {_shown(key)} the part {_shown(part)} is not a name. {RULE}.")
    return Identity(*parts)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")
