"""Networks for small images that torchvision lacks: ResNet-18, ConvNets and wide ResNets.

Parameter names are those of the usual CIFAR and Tiny-ImageNet checkpoints, which therefore load
unchanged. They are written out because importing torchvision takes longer than importing torch.

Axes: B images, S side in pixels.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Norm = Literal["batch", "instance"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, with torchvision's parameter names."""

    def __init__(self, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            convolution = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H / stride, W / stride)."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(y + shortcut)
        return out


class SmallResNet18(nn.Module):
    """ResNet-18 for images of 16 to 64 pixels: a 3x3 stride-1 stem and no max-pool.

    Source: arXiv:1512.03385, with the stem of the CIFAR-100 and Tiny-ImageNet teachers of
    arXiv:2306.13092 (section 4, "squeeze"). Differs from the paper: the width is free. With `pool`,
    the max-pool stays, as in some published CIFAR-10 teachers with the same tensors.
    """

    def __init__(self, num_classes: int, *, width: int, pool: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()
        self.layer1 = _residual_stage(width, width, stride=1)
        self.layer2 = _residual_stage(width, 2 * width, stride=2)
        self.layer3 = _residual_stage(2 * width, 4 * width, stride=2)
        self.layer4 = _residual_stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of normalised images (B, 3, S, S)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


class CifarResNet(nn.Module):
    """The narrow residual networks of depth d = 6 n + 2 for CIFAR-10, in three stages.

    Source: arXiv:1512.03385, section 4.2. Differs from the paper: a shortcut to another width is a
    1x1 convolution, as in the usual published checkpoints, whose parameter names these are.
    """

    def __init__(self, num_classes: int, *, depth: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _residual_stage(16, 16, stride=1, count=count)
        self.layer2 = _residual_stage(16, 32, stride=2, count=count)
        self.layer3 = _residual_stage(32, 64, stride=2, count=count)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of normalised images (B, 3, S, S)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _residual_stage(channels: int, out: int, *, stride: int, count: int = 2) -> nn.Sequential:
    """Return basic blocks of one width; the first may halve the side."""
    rest = [BasicBlock(out, out) for _ in range(count - 1)]
    return nn.Sequential(BasicBlock(channels, out, stride=stride), *rest)


class ConvNet(nn.Module):
    """The plain network of the distillation literature: (conv, norm, ReLU, average pool) x depth.

    Source: arXiv:1804.09081, as used by arXiv:2006.05929 (section 4.1) with instance norm, and by
    arXiv:2311.17950 and arXiv:2312.03526 with batch norm.
    Differs from the paper: the last map is averaged instead of flattened, so that the parameters
    do not depend on the side of the images.
    """

    def __init__(self, num_classes: int, *, depth: int, width: int, norm: Norm = "batch") -> None:
        super().__init__()
        blocks = [_plain_block(width if i else 3, width, norm) for i in range(depth)]
        self.features = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of normalised images (B, 3, S, S), S >= 2**depth."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def _plain_block(channels: int, out: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, padding=1),
        nn.BatchNorm2d(out) if norm == "batch" else nn.GroupNorm(out, out),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
    )


class PreactivationBlock(nn.Module):
    """Two times norm, ReLU and a 3x3 convolution, beside a shortcut."""

    def __init__(self, channels: int, out: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.convShortcut: nn.Module | None = None
        if stride != 1 or channels != out:
            self.convShortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H / stride, W / stride)."""
        y = self.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(y)
        out: Tensor = self.conv2(self.relu(self.bn2(self.conv1(y)))) + shortcut
        return out


class WideBlock(nn.Module):
    """Residual blocks of one width; the first may halve the side."""

    def __init__(self, channels: int, out: int, *, count: int, stride: int) -> None:
        super().__init__()
        first = PreactivationBlock(channels, out, stride=stride)
        rest = [PreactivationBlock(out, out, stride=1) for _ in range(count - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, H / stride, W / stride)."""
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """WRN-d-k: a residual network of depth d = 6 n + 4 that is k times as wide as the plain one.

    Source: arXiv:1605.07146, section 2, without dropout. Parameter names are those of the usual
    CIFAR checkpoints.
    """

    def __init__(self, num_classes: int, *, depth: int, width: int) -> None:
        super().__init__()
        count = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = WideBlock(16, 16 * width, count=count, stride=1)
        self.block2 = WideBlock(16 * width, 32 * width, count=count, stride=2)
        self.block3 = WideBlock(32 * width, 64 * width, count=count, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, C) of normalised images (B, 3, S, S)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = self.avgpool(self.relu(self.bn1(x)))
        logits: Tensor = self.fc(x.flatten(1))
        return logits
