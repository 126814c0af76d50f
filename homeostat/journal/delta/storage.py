"""Where tables lie: a local folder or an object store, named by its URL, and our patience with it.

delta-rs and Arrow read the stores' standard variables themselves (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ALLOW_HTTP …, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_…),
so none of our code has to see a credential.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.fs as pafs

from homeostat.errors import SettingsError

# The forms that both delta-rs and Arrow take; each of them knows others that the other does not.
SCHEMES = ("file", "s3", "gs", "abfss")

# A store that is away is noticed in seconds: what waits, waits in the spool, and who reads is told.
# Not in two or three: several parts of a large commit share the line, and each has to get through.
PATIENCE = {
    "connect_timeout": "3s",
    "timeout": "20s",  # of one request, with its body: one part of a file at most
    "max_retries": "2",
    "retry_timeout": "20s",  # no further try after so long
}
_CONNECT_SECONDS = 3.0
_ATTEMPTS = 2  # Arrow's; each is given up when nothing came for three seconds


def check(url: str) -> None:
    """Raises SettingsError for a place that only one of the two libraries could reach."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme not in SCHEMES:
        raise SettingsError(
            f'"{url}" is no place for the tables: a folder, s3://bucket/folder, gs://bucket/folder '
            "or abfss://container@account.dfs.core.windows.net/folder",
            key="journal.path",
        )


def local_folder(url: str) -> Path | None:
    """None on an object store."""
    if url.startswith("file://"):
        return Path(unquote(url.removeprefix("file://")))
    return None if "://" in url else Path(url)


def options(url: str) -> dict[str, str] | None:
    """What delta-rs is told beside the variables it reads."""
    return None if local_folder(url) is not None else dict(PATIENCE)


def filesystem(url: str) -> Any:
    """Arrow's view of a folder. Its own: with deltalake's, a thread of Arrow's that still holds
    Python objects aborts the process at its exit, now and then."""
    folder = local_folder(url)
    if folder is not None:
        return pafs.SubTreeFileSystem(str(folder.resolve()), pafs.LocalFileSystem())
    store, path = pafs.FileSystem.from_uri(url)
    return pafs.SubTreeFileSystem(path, _impatient(store))


def _impatient(store: Any) -> Any:
    """The same store, given up sooner: `from_uri` reads the variables, but tries 31 times, which
    is 100 seconds for each request to a store that hangs."""
    if not isinstance(store, pafs.S3FileSystem):
        return store
    _, (found,) = store.__reduce__()  # the arguments it would be made anew with
    found["connect_timeout"] = _CONNECT_SECONDS
    return pafs.S3FileSystem(
        **found, retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
    )
