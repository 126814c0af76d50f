"""What the supervisor has opened, and its workers serve at: it holds until a restart."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace

from homeostat.errors import SettingsError
from homeostat.settings_of_serving import ServingSettings


@dataclass(frozen=True, kw_only=True)
class Opened:
    host: str  # by the socket's own word: who may ask without a key depends on it
    port: int
    grpc_port: int | None
    tls: bool

    def hold(self, serving: ServingSettings) -> ServingSettings:
        """The settings, as they are by now, with the address that is open. Raises SettingsError
        where they turn TLS on or off: of several processes at one port each would have its own."""
        if speaks_tls(serving) != self.tls:
            now, then = ("without", "with") if self.tls else ("with", "without")
            raise SettingsError(
                f"the port was opened {then} TLS, and stays so until a restart; by these settings "
                f"it would be {now}: change them back, or start the server again",
                key="serving.tls_certificate",
            )
        return replace(serving, host=self.host, port=self.port, grpc_port=self.grpc_port)


def opened(listener: socket.socket, grpc_port: int | None, *, tls: bool) -> Opened:
    host, port = listener.getsockname()[:2]
    return Opened(host=host, port=port, grpc_port=grpc_port, tls=tls)


def speaks_tls(serving: ServingSettings) -> bool:
    return serving.tls_certificate is not None
