"""What training leaves on a model that the safe form cannot hold, and the one line that takes it off.

Live modules and pickled ones have the same, so both say the same of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from layerscope.models.file_kinds import UPLOAD, UPLOAD_WITH_IMAGES
from layerscope.schemas.errors import Refused

_REMOVE: Final[Mapping[str, tuple[str, str]]] = {
    "torch.nn.utils.prune": ("torch.nn.utils.prune.remove", "{}_mask"),
    "torch.nn.utils.weight_norm": ("torch.nn.utils.remove_weight_norm", "{}_g"),
    "torch.nn.utils.spectral_norm": ("torch.nn.utils.remove_spectral_norm", "{}_u"),
}
"""By the module that the hook's class is in: what makes the weight permanent, and the tensor by which it is known."""


def has_hooks(module: str, hooks: Iterable[tuple[str, str]]) -> Refused:
    """Return the refusal of a module with hooks.

    Args:
        module: what it is called in a message.
        hooks: all those of the whole model, each by the module that its class is in and the tensor that it computes.
    """
    found = sorted(set(hooks))
    steps = [_permanent(*one) for one in found if one[0] in _REMOVE]
    if len(steps) < len(found) or not found:
        steps.append("Call remove() on the handles that register_forward_hook and register_forward_pre_hook returned")
    message = f"{module} has forward hooks, which may change what it computes."
    return Refused("has-hooks", message, f"{'. '.join(steps)}. Then upload it from Python: {UPLOAD}")


def _permanent(kind: str, tensor: str) -> str:
    call, known_by = _REMOVE[kind]
    layers = f"for layer in model.modules() if hasattr(layer, {known_by.format(tensor)!r})"
    return f"Make what a hook computes permanent: [{call}(layer, {tensor!r}) {layers}]"


def patched(module: str, name: str, here: str) -> Refused:
    """Return the refusal of a module with something set on the object in place of what its class computes.

    Args:
        module: what it is called in a message.
        name: of the attribute.
        here: where the module is in the model, "" for the model itself.
    """
    return Refused(
        "patched-forward",
        f"{module} has {name!a} set on the object, in place of what its class computes.",
        f"From Python, with images that it takes, torch.export follows it: {UPLOAD_WITH_IMAGES}; or take it off, which "
        f"leaves what the class computes: del {place(here)}.{name}",
    )


def densely(tensor: str) -> str:
    """Return the assignment that makes a sparse parameter of a model dense."""
    layer, _, leaf = tensor.rpartition(".")
    return f"{place(layer)}.{leaf} = torch.nn.Parameter({place(layer)}.{leaf}.to_dense())"


def place(layer: str) -> str:
    """Return how Python names a module of a model."""
    return f"model.get_submodule({layer!r})" if layer else "model"


OTHERWISE: Final = (
    "Write that step of forward with others, which docs/models.md lists; in a model of a library, put a module of your own "
    f"in the place of the one that has it. Then upload it from Python: {UPLOAD}"
)
NOT_RANDOM: Final = (
    "Leave it out where self.training is False; in a model of a library, put a module of your own in the place of the one "
    f"that has it. Then upload it from Python: {UPLOAD}"
)
IMAGES_ALONE: Final = (
    "Put it in a module of your own, whose forward takes the images alone and calls it as it wants to be called, and "
    f"upload that: {UPLOAD}"
)
SCORES_ALONE: Final = (
    f"Put it in a module of your own, whose forward returns the class scores alone, and upload that: {UPLOAD}"
)
REAL: Final = f"Keep real numbers instead, two for each complex one. Then upload it from Python: {UPLOAD}"
SMALLER_FILE: Final = (
    "Upload a smaller model, or one in half precision: layerscope.upload(model.half(), 'DATASET/MODEL/VERSION')"
)
SMALLER_LAYERS: Final = f"Upload a model with smaller layers: {UPLOAD}"
LOAD_VALUES: Final = "model.load_state_dict(torch.load('weights.pt'), assign=True)"
IN_FLOATS: Final = "layerscope.upload(model.float(), 'DATASET/MODEL/VERSION')"
NOT_PARAMETRIZED: Final = (
    "[torch.nn.utils.parametrize.remove_parametrizations(layer, name) for layer in model.modules() "
    "if torch.nn.utils.parametrize.is_parametrized(layer) for name in list(layer.parametrizations)]"
)
