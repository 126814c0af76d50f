"""Names of the columns that stand beside a model's features in the frames rooms exchange.

A frame holds the features under their own names and what the platform knows of a row under these.
"""

from __future__ import annotations

PREDICTION_ID = "_prediction_id"
TIME = "_time"
VERSION = "_version"
PREDICTION = "_prediction"  # canonical text of the class, or a number for regression
LABEL = "_label"  # likewise; null where none has come
LABEL_TIME = "_label_time"
LABEL_KNOWN = "_label_known"  # since when it is here: its own time, or that of its arrival
PROBABILITIES = "_probabilities"
EMBEDDING = "_embedding"
ROLE = "_role"  # champion, challenger, shadow …
KEY = "_key"  # the caller's own key of a row: a user, a device
WEIGHT = "_weight"  # how many rows a row stands for: 1 / journal.sample at its time
DESCRIPTORS = "_descriptors"  # six numbers in the place of the inputs; null where these are logged
RECORDED = (
    "_recorded"  # the settings that left inputs out, hid or reduced them; null: all are there
)
SOURCE = "_source"  # who gave a label
NUMBER = "_number"  # a label's value as a number, null where it is none

RESERVED = frozenset(
    {
        PREDICTION_ID,
        TIME,
        VERSION,
        PREDICTION,
        LABEL,
        LABEL_TIME,
        LABEL_KNOWN,
        PROBABILITIES,
        EMBEDDING,
        ROLE,
        KEY,
        WEIGHT,
        DESCRIPTORS,
        RECORDED,
        SOURCE,
        NUMBER,
    }
)
