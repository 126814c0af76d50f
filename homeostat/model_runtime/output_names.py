"""Which of several outputs of a model is the prediction."""

from __future__ import annotations

OUTPUT_NAMES = ("logits", "probabilities", "output", "outputs", "prediction", "predictions")
