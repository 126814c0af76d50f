"""The network with the weights every contestant serves, the plain way: no export, no platform."""

from __future__ import annotations

from pathlib import Path

import torch


def load(folder: str) -> torch.nn.Module:
    torch.set_num_threads(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 3),
    )
    model.load_state_dict(torch.load(Path(folder) / "weights.pt", weights_only=True))
    return model.eval()
