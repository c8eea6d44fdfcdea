"""Small image classifiers as people write them, for the tests of the safe form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tutorial(nn.Module):
    """The functional style: views by size, relu and pooling as functions, log-probabilities at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.drop = nn.Dropout2d()
        self.fc1 = nn.Linear(150, 16)
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.drop(self.conv2(x)), 2))
        x = x.view(x.size(0), -1)
        x = functional.dropout(functional.relu(self.fc1(x)), training=self.training)
        return functional.log_softmax(self.fc2(x), dim=1)


class Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None if stride == 1 else nn.Conv2d(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 8, 2))
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 1, "one channel"
        return self.fc(torch.flatten(self.pool(self.layer1(self.stem(x))), 1))


class PadShortcut(nn.Module):
    """The parameter-free shortcut of the CIFAR ResNets: slices and pads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, 2, 1)
        self.shortcut = Lambda(lambda x: functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2), "constant", 0))
        self.fc = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x) + self.shortcut(x)
        out = functional.avg_pool2d(out, out.size()[3])
        return self.fc(out.view(out.size(0), -1))


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 5, padding="same")]
        )
        self.head = nn.ModuleDict({"norm": nn.GroupNorm(2, 10), "fc": nn.Linear(10, 10)})

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches] + [functional.max_pool2d(x, 3, stride=1, padding=1)]
        x = self.head["norm"](torch.cat(parts, 1))
        return self.head["fc"](functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))


class SharedLayer(nn.Module):
    """One layer called twice, and the same block under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
        self.second = self.first
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.conv(self.stem(x)))
        return self.fc(self.second(self.conv(x)).mean([2, 3]))


class Tied(nn.Module):
    """The weight of one layer is the weight of another, and of a function besides."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(64, 10, bias=False)
        self.again = nn.Linear(64, 10)
        self.again.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.linear(self.down(x.flatten(1)), self.down.weight.t())
        return self.again(hidden)


class Normalising(nn.Module):
    """A registered buffer, one that state_dict leaves out, a plain tensor, and a tensor made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 1, 1, 1))
        self.register_buffer("std", torch.rand(1) + 0.5, persistent=False)
        self.scale = torch.rand(1, 1, 1, 1) + 0.5
        self.gamma = nn.Parameter(torch.rand(()))
        self.net = nn.Sequential(nn.ConvTranspose2d(1, 2, 2, 2), nn.PReLU(2), nn.Flatten(), nn.Linear(2048, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std[:, None, None, None]
        return self.net(x * self.scale * self.gamma + torch.tensor([0.25]))


class Attention(nn.Module):
    """A small vision transformer written by hand: class token, positions, a loop over blocks, matmul and softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        self.positions = nn.Parameter(torch.rand(1, 5, 8))
        self.qkv = nn.ModuleList([nn.Linear(8, 24), nn.Linear(8, 24)])
        self.ready = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.patches(x[:, :, :8, :8]).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(batch, -1, -1), x), dim=1) + self.positions
        for layer in self.qkv:
            count, width = x.shape[1], x.shape[2]
            q, k, v = layer(x).reshape(batch, count, 3, 2, width // 2).permute(2, 0, 3, 1, 4)[0:3].unbind(0)
            weights = (q @ k.transpose(-2, -1) * 0.5).softmax(dim=-1)
            x = x + (weights @ v).transpose(1, 2).reshape(batch, count, width)
        answer, _ = self.ready(x, x, x, need_weights=False)
        return self.head(self.norm(x + answer)[:, 0])


class Rows(nn.Module):
    """An LSTM over the rows of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x[:, :, :8, :8].squeeze(1))
        return self.fc(out[:, -1])


def plain() -> nn.Module:
    """Return a plain Sequential with many kinds of layer."""
    return nn.Sequential(
        nn.ZeroPad2d(1),
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1),
        nn.LocalResponseNorm(3),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.AvgPool2d(2),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Sequential(nn.MaxPool2d(2), nn.GELU(), nn.Hardswish(), nn.Identity()),
        nn.AdaptiveMaxPool2d((None, 3)),
        nn.Flatten(),
        nn.LazyLinear(16),
        nn.BatchNorm1d(16),
        nn.SELU(),
        nn.AlphaDropout(0.2),
        nn.Linear(16, 10),
        nn.Softmax(dim=1),
    )


def plain_initialised() -> nn.Module:
    """Return `plain` after the first batch, which gives its lazy layer a size."""
    model = plain()
    model(torch.zeros(2, 1, 16, 16))
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain_initialised,
    "functional": Tutorial,
    "residual": Residual,
    "pad shortcut": PadShortcut,
    "branches": Branches,
    "shared": SharedLayer,
    "tied": Tied,
    "buffers": Normalising,
    "attention": Attention,
    "recurrent": Rows,
}
SIZES = {"functional": 28, "tied": 8}


def images(name: str, count: int = 3) -> Tensor:
    """Return a batch that the network of this name takes."""
    size = SIZES.get(name, 16)
    return torch.rand(count, 1, size, size)


def randomise(model: nn.Module) -> nn.Module:
    """Give every parameter and buffer values of its own: fresh layers have buffers that hide what is lost."""
    with torch.no_grad():
        for name, tensor in _tensors(model):
            if not tensor.is_floating_point():
                tensor.random_(1, 5)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            else:
                fan_in = max(1, tensor[0].numel()) if tensor.dim() > 1 else 1
                tensor.copy_(torch.randn_like(tensor) / fan_in**0.5 + 0.1)
    return model


def _tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
