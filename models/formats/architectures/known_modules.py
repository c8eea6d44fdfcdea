"""A known architecture as a module: built without memory, then given the tensors of a state dict.

Part of `architectures`, which finds out what a state dict belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from layerscope.models.formats.architectures.heads import Head, replace_head
from layerscope.models.formats.architectures.table import family_of
from layerscope.models.formats.filling import fill
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

_OLD_NAMES: Final = (
    # DenseNets until torch 0.4, and the files of their ImageNet weights to this day.
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", re.ASCII), r"\1\2."),
    # Vision transformers until torchvision 0.13, likewise.
    (re.compile(r"\.mlp\.linear_1\.", re.ASCII), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\.", re.ASCII), ".mlp.3."),
)


@dataclass(frozen=True, slots=True)
class KnownArchitecture:
    """A known architecture, with all that `build_known` needs; `notes` are the rules that settled something."""

    name: str
    num_classes: int
    in_channels: int
    head: Head
    stem_bias: bool | None = None
    """Whether the first convolution has a bias; None where it is torchvision's own."""
    image_size: int | None = None
    auxiliary_classes: int | None = None
    transform_input: bool = False
    cifar_stem: bool = False
    notes: tuple[str, ...] = ()


class _WithoutMemory(TorchFunctionMode):
    """Lets constructors make their parameters without memory and without numbers; small tables are made as they are."""

    _ALLOCATING: Final = frozenset({torch.empty, torch.ones, torch.zeros})
    _FILLING: Final = frozenset(
        {
            *(Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.mul_, Tensor.add_),
            *(Tensor.clamp_, Tensor.fill_, Tensor.zero_, Tensor.copy_),
        }
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._ALLOCATING:
            return func(*args, **{**kwargs, "device": "meta"})
        if func in self._FILLING and args[0].is_meta:
            return args[0]
        return func(*args, **kwargs)


def build_known(known: KnownArchitecture) -> nn.Module:
    """Return the architecture in eval mode, its parameters on the meta device; `filled` gives it its tensors."""
    options: dict[str, Any] = {}
    if known.image_size is not None:
        options["image_size"] = known.image_size
    if known.auxiliary_classes is not None:
        options |= {"aux_logits": True, "num_classes": known.auxiliary_classes}
    module = make(known.name, **options)
    with _WithoutMemory():
        _replace_stem(module, family_of(known.name).stem, known)
        replace_head(module, known.head)
    if known.transform_input:
        setattr(module, "transform_input", True)  # noqa: B010  # mypy takes assigned attributes for tensors
    return module.eval()


def make(name: str, **options: Any) -> nn.Module:
    """Return torchvision's architecture `name` without memory; without auxiliary heads unless `options` ask for them."""
    from torchvision import models  # seconds to import, and only state dicts alone need it

    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False, **options}
    with _WithoutMemory():
        module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def _replace_stem(module: nn.Module, path: str, known: KnownArchitecture) -> None:
    own = module.get_submodule(path)
    if not isinstance(own, nn.Conv2d):
        raise TypeError(f"{path} of {known.name} is no convolution")
    if known.in_channels == own.in_channels and known.stem_bias is None and not known.cifar_stem:
        return
    bias = own.bias is not None if known.stem_bias is None else known.stem_bias
    if known.cifar_stem:
        stem = nn.Conv2d(known.in_channels, own.out_channels, 3, 1, 1, bias=bias)
        module.set_submodule("maxpool", nn.Identity())
    else:
        sizes: dict[str, Any] = {"kernel_size": own.kernel_size, "stride": own.stride, "padding": own.padding}
        stem = nn.Conv2d(known.in_channels, own.out_channels, **sizes, bias=bias)
    module.set_submodule(path, stem)


def filled(known: KnownArchitecture, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the architecture with the tensors of a state dict, whichever names they have there.

    Raises:
        Refused: as of `renamed` and `filling.fill`.
    """
    return fill(build_known(known), renamed(tensors))


def own_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in the state dict of `module`."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def renamed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a state dict by their present names.

    Raises:
        Refused: `duplicate-tensor`, two of them have the same present name.
    """
    present: dict[str, Any] = {}
    for name, entry in entries.items():
        now = name
        for old, new in _OLD_NAMES:
            now = old.sub(new, now)
        if now in present:
            raise Refused(
                "duplicate-tensor",
                f"The state dict has {shown(now)} twice, by its present name and by one of old releases.",
                "Save it from a model that it was loaded into: torch.save(model.state_dict(), 'model.pth')",
            )
        present[now] = entry
    return present
