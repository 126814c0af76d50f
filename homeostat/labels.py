"""One text for one label, whoever sends it: 3, 3.0, "3" and numpy's 3 are the same class."""

from __future__ import annotations

import math
from typing import Any

from homeostat.records import Task

LABEL = "label"  # the name of the label that is compared with the prediction
LONGEST = 1024  # characters of a label


def canonical(value: Any) -> str:
    """The text a label or a predicted class is stored and compared as.

    Whole numbers lose their fraction, so that a class read back as a float still matches;
    booleans become "true" and "false". A missing or non-finite value raises ValueError.
    """
    if value is None:
        raise ValueError("a label may not be null")
    if isinstance(value, str):
        return str(value)  # numpy's text is a kind of str that MessagePack does not take
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a label must be finite")
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    raise ValueError(f"a label must be a string, a number or a boolean, not {type(value).__name__}")


def checked(value: Any, name: str, task: Task) -> str:
    """The text to store for a label of this name; raises ValueError for what cannot be one.

    What is compared with a regression's prediction is a number. Labels of any other name, such as
    what a user thought of an answer, or what it earned, are theirs to define; but no text that
    reads as a number and is none ("nan", "inf"): it would spoil every sum of outcomes.
    """
    text = canonical(value)
    if len(text) > LONGEST:
        raise ValueError(f"a label has at most {LONGEST} characters")
    if name == LABEL and task is Task.REGRESSION and not math.isfinite(float(text)):
        raise ValueError("a label must be finite")
    if name != LABEL and _not_finite(text):
        raise ValueError(
            f'{text!r:.60} as "{name}" would be read as a number, and is none: leave it out, or '
            "say it in a word"
        )
    return text


def _not_finite(text: str) -> bool:
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False
