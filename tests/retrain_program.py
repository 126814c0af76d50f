"""A user's training program for the tests: a small network on the digits."""

from __future__ import annotations

import argparse

import mlflow
import numpy as np
import pandas as pd
import torch
from torch import nn


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--data", required=True)
    chosen = arguments.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    frame = pd.read_parquet(chosen.data)
    x = torch.tensor(frame.drop(columns="target").to_numpy(np.float32))
    y = torch.tensor(frame["target"].to_numpy(np.int64))
    first = nn.Linear(64, 48)
    net = nn.Sequential(first, nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(net(x / 16), y))
        optimizer.step()
    with torch.no_grad():
        first.weight /= 16
    mlflow.set_experiment("digits-of-my-own")
    with mlflow.start_run():
        mlflow.pytorch.log_model(
            net.eval(),
            name="net",
            input_example=x[:2].numpy(),
            pip_requirements=["mlflow"],
        )


if __name__ == "__main__":
    main()
