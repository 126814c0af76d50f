"""One base, one class a situation. The message says what happened, where, and what to do.

HomeostatError
├── SettingsError          the project's settings are wrong
├── NotReady               something needed is not there yet (no champion, no journal …)
├── Unavailable            something outside is away; the same call may work later
│   ├── RegistryUnavailable
│   ├── StateUnavailable
│   └── JournalUnavailable
│       └── JournalFull    no room is left for what waits to be stored
├── RegistryRefused        MLflow answers, and says no; waiting does not help
├── IntegrityError         files are not what their digest says
├── ModelError             a version cannot be loaded or does not answer
│   ├── ModelDied          its process ended over the rows; the next ones find a new one
│   │   └── ModelAway      it ended before it had read them; they may be asked again
│   └── ModelSilent        no answer within its time, or no process to give one
├── InputError             a request's content is wrong; carries row and field
├── AuthError              a key is missing, wrong, or lacks a scope
├── TrainingError          the user's program failed; carries its last lines
├── Conflict               somebody else was first (an epoch, a lease)
└── JobError               a child process of ours failed; carries its last lines
"""

from __future__ import annotations


class HomeostatError(Exception):
    """Base of every error we raise on purpose."""


class SettingsError(HomeostatError):
    """Carries the file and the key, so that an editor can jump there."""

    def __init__(self, message: str, *, file: str = "", key: str = "") -> None:
        where = ": ".join(part for part in (file, key) if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.file = file
        self.key = key


class NotReady(HomeostatError):
    """Something needed is not there yet; the message says how it comes to be."""


class Unavailable(HomeostatError):
    """Something outside is away; nothing was lost, and the same call may work later."""


class RegistryUnavailable(Unavailable):
    """MLflow does not answer."""


class RegistryRefused(HomeostatError):
    """MLflow answers, and does not do what was asked: a right is missing, or the request wrong."""


class StateUnavailable(Unavailable):
    """The state database does not answer."""


class JournalUnavailable(Unavailable):
    """The journal's storage does not answer."""


class JournalFull(JournalUnavailable):
    """What waits for the tables fills all the room it may take."""


class IntegrityError(HomeostatError):
    """Files are not what their recorded digest says: do not load them, fetch again."""


class ModelError(HomeostatError):
    """A version cannot be loaded, or does not do what its signature promises."""


class ModelDied(ModelError):
    """A version's process ended while it had the rows; it is started again for the next ones."""


class ModelAway(ModelDied):
    """A version's process had ended before it had read the rows, which it cannot have died of."""


class ModelSilent(ModelError):
    """A version did not answer within its time, or could not be started again. Who asks again may
    wait as long once more."""


class InputError(HomeostatError):
    """A request's content is wrong; row and field say where."""

    def __init__(self, message: str, *, row: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.field = field


class AuthError(HomeostatError):
    """A key is missing or unknown (status 401), or lacks the scope (403)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ProgramError(HomeostatError):
    """A child process failed; `tail` holds its last lines of output."""

    def __init__(self, message: str, *, tail: str = "") -> None:
        super().__init__(message)
        self.tail = tail


class TrainingError(ProgramError):
    """The user's training program crashed, hung, or logged no model."""


class JobError(ProgramError):
    """One of our own child processes failed."""


class Conflict(HomeostatError):
    """Somebody else was first; read again and decide anew."""
