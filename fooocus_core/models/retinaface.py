"""RetinaFace's network with a ResNet-50 body, in the layout of the published file (specification 06, section 3).

Deng et al., RetinaFace: Single-stage Dense Face Localisation in the Wild (2019). The parts bear the names of the file's
keys. The body is written out because transformers' own would need every key of it translated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from fooocus_core.errors import UnsupportedModel

FIRST, PYRAMID = "body.conv1.weight", "fpn.output1.0.weight"
"""Keys by which the layout is known, and whose shapes tell the widths."""
LEVELS = 3
ANCHORS_PER_CELL = 2
CLASSES, BOX_VALUES, LANDMARK_VALUES = 2, 4, 10
FACE_CLASS = 1
EXPANSION = 4
"""How many times wider a block of the body is at its end than inside."""


class Outputs(NamedTuple):
    """What the network says of each of a picture's anchors, from the finest level to the coarsest, row by row."""

    scores: Tensor
    """``[anchors]``, the probability of a face."""
    boxes: Tensor
    """``[anchors, 4]``, offsets from the anchor."""
    landmarks: Tensor
    """``[anchors, 10]``, offsets from the anchor."""


class RetinaFace(nn.Module):
    """Pixels ``[1, 3, h, w]``, BGR in ``[0, 255]`` less the mean, of any size."""

    def __init__(self, body_width: int, width: int) -> None:
        super().__init__()
        self.body = _Body(body_width)
        self.fpn = _Pyramid([EXPANSION * body_width * times for times in (2, 4, 8)], width)
        self.ssh1 = _Context(width)
        self.ssh2 = _Context(width)
        self.ssh3 = _Context(width)
        self.ClassHead = _heads(width, CLASSES)
        self.BboxHead = _heads(width, BOX_VALUES)
        self.LandmarkHead = _heads(width, LANDMARK_VALUES)

    def forward(self, pixels: Tensor) -> Outputs:
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        levels = [context(level) for context, level in zip(contexts, self.fpn(self.body(pixels)), strict=True)]
        classes = _of_all_levels(self.ClassHead, levels)
        return Outputs(
            classes.softmax(-1)[:, FACE_CLASS],
            _of_all_levels(self.BboxHead, levels),
            _of_all_levels(self.LandmarkHead, levels),
        )


def empty_retinaface(weights: Mapping[str, Tensor], name: str) -> RetinaFace:
    """The network of a file, without its tensors, on the meta device. Raises ``UnsupportedModel`` for another kind."""
    try:
        body_width, width = weights[FIRST].shape[0], weights[PYRAMID].shape[0]
    except (KeyError, IndexError) as error:
        raise UnsupportedModel(name, "not a detector of faces, RetinaFace with a ResNet-50 body") from error
    with torch.device("meta"):
        return RetinaFace(body_width, width)


class _Body(nn.Module):
    """ResNet-50 without its end: features at an eighth, a sixteenth and a 32nd of the size, rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, blocks=3, stride=1)
        self.layer2 = _stage(4 * width, 2 * width, blocks=4, stride=2)
        self.layer3 = _stage(8 * width, 4 * width, blocks=6, stride=2)
        self.layer4 = _stage(16 * width, 8 * width, blocks=3, stride=2)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(pixels))))))
        middle = self.layer3(fine)
        return fine, middle, self.layer4(middle)


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    following = (_Bottleneck(EXPANSION * width, width) for _ in range(blocks - 1))
    return nn.Sequential(_Bottleneck(width_in, width, stride), *following)


class _Bottleneck(nn.Module):
    """Three convolutions, the middle one with the stride, beside a way around them."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        width_out = EXPANSION * width
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.downsample = _normed(nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return cast(Tensor, self.relu(out))


class _Pyramid(nn.Module):
    """The three levels at one width, each with what the coarser one knows. The coarsest stays as it is."""

    def __init__(self, widths_in: list[int], width: int) -> None:
        super().__init__()
        fine, middle, coarse = widths_in
        self.output1 = _normed(nn.Conv2d(fine, width, 1, bias=False), nn.ReLU(inplace=True))
        self.output2 = _normed(nn.Conv2d(middle, width, 1, bias=False), nn.ReLU(inplace=True))
        self.output3 = _normed(nn.Conv2d(coarse, width, 1, bias=False), nn.ReLU(inplace=True))
        self.merge1 = _normed(_convolution(width, width), nn.ReLU(inplace=True))
        self.merge2 = _normed(_convolution(width, width), nn.ReLU(inplace=True))

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.output1(features[0]), self.output2(features[1]), self.output3(features[2])
        middle = self.merge2(_added(middle, coarse))
        return self.merge1(_added(fine, middle)), middle, coarse


def _added(finer: Tensor, coarser: Tensor) -> Tensor:
    return finer + interpolate(coarser, size=finer.shape[2:], mode="nearest")


class _Context(nn.Module):
    """SSH's context module: fields of 3, 5 and 7 cells side by side, in half, a quarter and a quarter of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.conv3X3 = _normed(_convolution(width, half))
        self.conv5X5_1 = _normed(_convolution(width, quarter), nn.ReLU(inplace=True))
        self.conv5X5_2 = _normed(_convolution(quarter, quarter))
        self.conv7X7_2 = _normed(_convolution(quarter, quarter), nn.ReLU(inplace=True))
        self.conv7x7_3 = _normed(_convolution(quarter, quarter))

    def forward(self, level: Tensor) -> Tensor:
        shared = self.conv5X5_1(level)
        wide = self.conv7x7_3(self.conv7X7_2(shared))
        return relu(torch.cat([self.conv3X3(level), self.conv5X5_2(shared), wide], 1))


class _Head(nn.Module):
    """``values`` numbers of every anchor: ``[1, width, h, w]`` to ``[h * w * anchors, values]``."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, ANCHORS_PER_CELL * values, 1)
        self.values = values

    def forward(self, level: Tensor) -> Tensor:
        said: Tensor = self.conv1x1(level)
        return said.permute(0, 2, 3, 1).reshape(-1, self.values)


def _heads(width: int, values: int) -> nn.ModuleList:
    return nn.ModuleList(_Head(width, values) for _ in range(LEVELS))


def _of_all_levels(heads: nn.ModuleList, levels: list[Tensor]) -> Tensor:
    return torch.cat([head(level) for head, level in zip(heads, levels, strict=True)])


def _convolution(width_in: int, width_out: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)


def _normed(convolution: nn.Conv2d, *after: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), *after)
