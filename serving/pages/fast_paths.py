"""Which of the server's short cuts a version takes: for people, in its metadata."""

from __future__ import annotations

from typing import TypedDict

from homeostat.model_runtime.contract import LoadedModel


class FastPaths(TypedDict):
    """How a version's requests are answered."""

    matrix: bool  # rows are one array of numbers from the parser to the model and the log
    numpy_rows: int  # batches of up to so many rows are computed in NumPy; 0: none
    packed_convolutions: int  # whose weights are laid out beforehand
    loop_rows: int  # batches of up to so many rows are answered on the event loop
    own_thread: bool  # all of them in a thread of their own


def fast_paths(model: LoadedModel, loop_rows: int) -> FastPaths:
    numbers = all(feature.kind == "number" for feature in model.spec.features)
    # only networks that run in this process have these
    rows: int = getattr(model, "small_rows", 0)
    packed: int = getattr(model, "packed_convolutions", 0)
    return FastPaths(
        matrix=numbers,
        numpy_rows=rows,
        packed_convolutions=packed,
        loop_rows=loop_rows,
        own_thread=loop_rows == 0,
    )
