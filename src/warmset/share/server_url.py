"""
The address of a Valkey or Redis server, without anything secret.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import StoreError

if TYPE_CHECKING:
    from .secret import AnyPath

__all__ = ["ServerUrl", "parse_url"]

_SCHEMES = {"valkey": False, "valkeys": True, "redis": False, "rediss": True, "unix": False}
_FORM = (
    "expected SCHEME://HOST:PORT/NUMBER with valkey, valkeys, redis or rediss, or unix:///PATH; "
    "credentials come from the environment or a file, the user from username=, and certificates of "
    "authorities from tls_ca_file="
)


class ServerUrl(NamedTuple):
    """A checked URL; its text is rebuilt from its parts, and contains nothing else."""

    scheme: str
    host: str
    port: int
    number: int
    """The number of the database."""
    path: str
    """The path of a Unix socket; empty with a host."""

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}" + (f"?db={self.number}" if self.number else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/{self.number}"

    def options(self, tls_ca_file: AnyPath | None) -> dict[str, Any]:
        """Get the arguments of a client; with TLS, certificates are verified for the host."""
        if self.path:
            return {"unix_socket_path": self.path, "db": self.number}
        options: dict[str, Any] = {"host": self.host, "port": self.port, "db": self.number}
        if _SCHEMES[self.scheme]:
            options |= {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
            options["ssl_ca_certs"] = tls_ca_file
        return options


def parse_url(url: object) -> ServerUrl:
    """
    Parse the URL of a store.

    Args:
        url: The URL.

    Returns:
        Its parts.

    Raises:
        TypeError: It is not a str.
        ValueError: It contains a user, a password, an option or a fragment.
        StoreError: It is no URL of a server.

    No text of an error contains the URL, which may contain a password.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a store must be a str, got {type(url).__name__}")
    if not url.isprintable():
        raise StoreError(f"the URL of a store contains control characters; {_FORM}")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        raise StoreError(f"the URL of a store has an unknown scheme; {_FORM}")
    found = re.fullmatch(r"([^?#]*)(?:\?db=([0-9]{1,4}))?", rest)
    if found is None or "@" in rest:
        raise ValueError(f"the URL of a store contains more than an address; {_FORM}")
    if scheme == "unix":
        path = unquote(found[1])
        if not path.startswith("/") or not path.isprintable():
            raise StoreError(f"the URL of a store has no absolute path; {_FORM}")
        return ServerUrl(scheme, "", 0, int(found[2] or 0), path)
    parts, port = _address(found[1])
    if parts is None:
        # Outside the handler: the caught error, which would be the context, has a part of the URL.
        raise StoreError(f"the URL of a store is invalid; {_FORM}")
    number = re.fullmatch(r"/?([0-9]{1,4})?", parts.path)
    if number is None or not re.fullmatch(r"[A-Za-z0-9_.:-]*", parts.hostname or ""):
        raise StoreError(f"the URL of a store is invalid; {_FORM}")
    database = int(number[1] or found[2] or 0)
    return ServerUrl(scheme, parts.hostname or "localhost", port or 6379, database, "")


def _address(text: str) -> tuple[SplitResult | None, int | None]:
    """Split host, port and path; None if that fails."""
    try:
        parts = urlsplit(f"//{text}")
        if "[" in parts.netloc:  # not before 3.11.4 does it check what is between the brackets
            ip_address(parts.hostname or "")
        return parts, parts.port
    except ValueError:
        return None, None
