"""Where the hot path connects: host, port, TLS, and the proxy that the environment names."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from lucid.errors import ConfigError

__all__ = ["Origin", "origin_of"]


@dataclass(frozen=True)
class Origin:
    """Where to connect, and the proxy on the way if there is one."""

    host: str
    port: int
    secure: bool = False
    proxy: Origin | None = None
    proxy_authorization: str = field(default="", repr=False)

    @property
    def authority(self) -> str:
        """Host and port as they stand in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def origin_of(host: str, port: int | None, secure: bool) -> Origin:
    """Where to connect, by the proxy variables that boto3 follows too."""
    scheme = "https" if secure else "http"
    port = port or (443 if secure else 80)
    found = getproxies().get(scheme)
    if not found or proxy_bypass(host):
        return Origin(host, port, secure)
    parts = urlsplit(found if "://" in found else f"http://{found}")
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"The proxy for {scheme} must be an http:// URL. Change {scheme}_proxy.")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(pair.encode()).decode("ascii")
        authorization = f"Proxy-Authorization: Basic {token}\r\n"
    proxy = Origin(parts.hostname, parts.port or 80)
    return Origin(host, port, secure, proxy, authorization)
