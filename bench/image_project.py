"""`python -m bench.image_project FOLDER`: a residual network of ResNet-18's size for images of
3x64x64, and a project around it that logs predictions without their inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from bench.model_project import TOML, cache, publish
from homeostat.settings import load

SHAPE = (3, 64, 64)
WIDTHS, CLASSES = (64, 128, 256, 512), 10


class Block(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        stride = 1 if before == width else 2
        self.first = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        self.short = (
            nn.Conv2d(before, width, 1, stride, bias=False) if stride > 1 else nn.Identity()
        )

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.norms[0](self.first(rows)))
        return torch.relu(self.norms[1](self.second(found)) + self.short(rows))


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    before = WIDTHS[0]
    for width in WIDTHS:
        blocks += [Block(before, width), Block(width, width)]
        before = width
    stem = [nn.Conv2d(3, WIDTHS[0], 7, 2, padding=3, bias=False), nn.BatchNorm2d(WIDTHS[0])]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], CLASSES)]
    return nn.Sequential(*stem, nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks, *head).eval()


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "homeostat.toml").write_text(TOML.replace("[journal]", '[journal]\ninputs = "none"'))
    settings = load(folder, {})
    publish(settings, cache(settings, network(), "1", SHAPE), epoch=1)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
