"""Sections of homeostat.toml: the model, its server, the prediction log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from homeostat.records import Task
from homeostat.words import Size, parse_size

# The second part of each Annotated is the key's line in docs/settings.md.


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is kept inside its limits."""

    name: Annotated[str, "registered model in MLflow"]
    task: Annotated[Task, "what the model does"] = Task.CLASSIFICATION
    training_data: Annotated[
        Path | None, "Parquet or CSV file of the rows the first version is trained on"
    ] = None
    target: Annotated[str, "column of the training data that holds the label"] = "target"
    features: Annotated[
        tuple[str, ...],
        "columns of the training data the model takes, in its order; empty: all but the target",
    ] = ()
    classes: Annotated[
        tuple[str, ...],
        "names of the classes in the order of the model's outputs; empty: the version's own "
        '(`metadata={"classes": […]}` in `log_model`, or scikit-learn\'s), else 0, 1, 2 …',
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """The model server."""

    host: Annotated[
        str, "address to listen on; beyond loopback only with keys, or `open_without_keys`"
    ] = "127.0.0.1"
    port: Annotated[int, "0 takes any free port"] = 8100
    grpc_port: Annotated[
        int | None,
        "port of the Open Inference Protocol over gRPC, on the same host; 0 takes any free port; "
        "default: none. Needs `homeostat[grpc]`",
    ] = None
    embedding: Annotated[
        str | None,
        "module of the network, or (for ONNX always) output of the model, that is logged as the "
        "embedding; default: the version's own",
    ] = None
    workers: Annotated[
        int, "processes that share the port, at most 256; each has a log spool of its own"
    ] = 1
    tls_certificate: Annotated[
        Path | None, "PEM file of the certificate, and those up to its authority; default: no TLS"
    ] = None
    tls_key: Annotated[Path | None, "PEM file of its key, without a password"] = None
    open_without_keys: Annotated[
        bool,
        "listen beyond loopback though there are no keys: whoever reaches the port may do "
        "everything; for a server that only a proxy reaches, which asks who calls",
    ] = False
    low_confidence: Annotated[
        float, "answers whose largest probability is below this are counted as uncertain"
    ] = 0.6
    max_body: Annotated[Size, "largest request body"] = parse_size("8MB")
    max_batch_rows: Annotated[int, "rows the model gets at once"] = 1024
    max_queued_rows: Annotated[
        int, "rows that may wait; past it the answer is 503, and 413 for one request with more"
    ] = 8192
    batch_wait: Annotated[
        timedelta, "how long a first request waits for others to share its batch (heavy models)"
    ] = timedelta(0)
    deadline: Annotated[
        timedelta,
        "a request that has waited longer is answered 504, unless its header `x-request-timeout` "
        '(over gRPC its deadline) says another number of seconds; "0s": it waits on',
    ] = timedelta(0)
    cache: Annotated[
        Size | None, "memory for answers, by input and version; default: none is kept"
    ] = None
    coalesce: Annotated[
        bool,
        "equal requests in flight are computed once (a model that answers on the event loop "
        "computes them sooner than it compares them); with `cache` always",
    ] = True
    shadow_rows: Annotated[
        int, "rows that may wait for a version in shadow; past it they are dropped"
    ] = 1024
    breaker_errors: Annotated[
        int,
        "so many failures of a version in a row, and others answer while they can: the version "
        "before, or `default_answer`; 0: never",
    ] = 5
    breaker_share: Annotated[
        float, "or failures above this share of the requests of ten seconds; 1: never"
    ] = 0.5
    breaker_rest: Annotated[
        timedelta, "until one request tries a failing version again; doubled while it fails"
    ] = timedelta(seconds=5)
    default_answer: Annotated[
        str | None,
        'JSON value that every row is answered with when no version can: `\'"circle"\'`, `"0.5"`',
    ] = None
    threads: Annotated[int, "threads of one prediction"] = 1
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        "where models of torch and ONNX compute; auto: on the GPU where torch finds one",
    ] = "auto"
    precision: Annotated[
        Literal["float32", "bf16"],
        "of a torch network's matrix products and convolutions; bf16 is faster on a GPU, and less "
        "exact: 3 digits",
    ] = "float32"
    gpu_memory: Annotated[
        float,
        "share of the GPU's memory that one process may take; it is enforced. Workers that have to "
        "share a GPU divide it",
    ] = 0.9
    traces: Annotated[
        str | None,
        "where OpenTelemetry traces of requests go: the URL of a collector that takes OTLP over "
        "HTTP, such as `http://127.0.0.1:4318`; default: there are none. Needs `homeostat[otel]`",
    ] = None
    traces_share: Annotated[
        float,
        "share of requests that are traced; callers that send a `traceparent` say it themselves",
    ] = 0.01
    drain: Annotated[timedelta, "longest wait for open requests at SIGTERM"] = timedelta(seconds=20)
    arrive_within: Annotated[
        timedelta,
        "longest time a request may take to come in, and a client to take nothing of its answer",
    ] = timedelta(seconds=60)
    poll: Annotated[timedelta, "how often the rollout record is looked at"] = timedelta(seconds=0.5)


@dataclass(frozen=True, kw_only=True)
class JournalSettings:
    """The prediction log."""

    path: Annotated[
        str | None,
        "folder or URL (s3://bucket/folder …) of the Delta tables; default: journal/ in home",
    ] = None
    durability: Annotated[
        Literal["async", "spool", "sync"],
        "when an answer goes out: async, before the row is written (a kill may lose the last "
        "50 ms); spool, after it is in the spool file (survives kill -9); sync, after fsync "
        "(survives power loss)",
    ] = "spool"
    commit_every: Annotated[timedelta, "longest time a row waits for its Delta commit"] = timedelta(
        seconds=30
    )
    commit_bytes: Annotated[Size, "or as soon as the spool holds this much"] = parse_size("64MB")
    memory: Annotated[Size, "rows in memory that wait for the spool (durability async)"] = (
        parse_size("64MB")
    )
    spool: Annotated[Size, "rows on local disk that wait for their commit"] = parse_size("4GB")
    when_full: Annotated[
        Literal["block", "drop"],
        "when memory or spool are full, or the disk does not take a row: block, the answer waits "
        "for room, at most `block_for`, then 503; drop, the answer goes out, the row is counted "
        "as dropped",
    ] = "block"
    block_for: Annotated[timedelta, "longest wait of an answer for room in the log"] = timedelta(
        seconds=2
    )
    sample: Annotated[
        float, "share of the rows that is logged, chosen by their id; readers weigh accordingly"
    ] = 1.0
    inputs: Annotated[
        Literal["full", "descriptors", "none"],
        "what is logged of a row's inputs: all; six numbers that describe it (mean, deviation, "
        "smallest, largest, share of zeros, share missing); nothing. Only full can train",
    ] = "full"
    redact: Annotated[
        tuple[str, ...], 'named columns, or "key" (the caller\'s), that are never logged'
    ] = ()
    hash: Annotated[
        tuple[str, ...],
        'named columns, or "key", of which only a keyed hash is logged: equal stays equal',
    ] = ()
    hash_key_env: Annotated[str | None, "environment variable that holds the key of that hash"] = (
        None
    )
    hash_key_file: Annotated[Path | None, "or a file that holds it"] = None
    keep: Annotated[timedelta, 'older rows, and labels, are deleted; "0s": never'] = timedelta(
        days=90
    )
    keep_bytes: Annotated[
        Size | None, "the oldest days are deleted beyond this size of the tables; default: no limit"
    ] = None
    upkeep_every: Annotated[
        timedelta, "how often small files are put together and old ones deleted"
    ] = timedelta(hours=1)
    keep_deleted: Annotated[
        timedelta, "replaced files stay this long for those who are reading them"
    ] = timedelta(hours=24)
