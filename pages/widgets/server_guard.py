"""ASGI middleware: checks of the Host and Origin headers, and the visitor cookie of a shared
server.

A page of another site can make a browser send requests to this server, and by DNS rebinding even
under that site's own name. Therefore Host must be a name of this server, and Origin must be a page
of this server.
"""

import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import cache
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from streamlit import config

from engine.runtime import settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ALL_ADDRESSES = ("", "0.0.0.0", "::")
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
HEALTH = "/_stcore/health"  # load balancers request it under any name; it only answers "ok"
COOKIE = "compression-explorer-visitor"
COOKIE_SECONDS = 365 * 24 * 3600


class AllowedHosts:
    """ASGI middleware that refuses requests and WebSockets under a foreign name or from a foreign
    page.
    """

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope.get("path", "").endswith(HEALTH):
            await self.app(scope, receive, send)
        elif reason := refusal(
            headers(scope, b"host"), headers(scope, b"origin"), local_address(scope)
        ):
            await refuse(scope, send, reason)
        else:
            await self.app(scope, receive, send)


def refusal(hosts: list[str], origins: list[str], address: str) -> str:
    """Reason why a request is refused; empty if it is allowed.

    ``address`` is the local address at which the request arrived.
    """
    host = split_host(hosts[0]) if len(hosts) == 1 else None
    if host is None or not (
        any(matches(host[0], name) for name in (*own_names(), address))
        or in_host_list(host, settings.hosts())
    ):
        name = hosts[0][:100] if hosts else ""
        return (
            f"This server does not accept the host name {name!r}. Open it under its own name, or "
            f"add the name to {settings.HOSTS} if a proxy uses it."
        )
    allowed = {
        split_origin(origin) for origin in config.get_option("server.corsAllowedOrigins")
    } - {None}
    for origin in origins:
        if (
            split_origin(origin) != ("http", *host)
            and split_origin(origin) not in allowed
            and not is_from_proxy(origin, host)
        ):
            return (
                f"This server does not accept requests from {origin[:100]!r}; open its own address."
            )
    return ""


def split_host(host: str) -> tuple[str, int] | None:
    """Return name and port of a Host header in lower case, or None if it is invalid.

    Port 0 is the default port of the scheme.
    """
    try:
        parts = urlsplit(f"//{host.strip().lower()}")
        if (
            not parts.hostname
            or parts.path
            or parts.query
            or parts.fragment
            or parts.username is not None
        ):
            return None
        return parts.hostname.rstrip("."), 0 if parts.port in (None, 80, 443) else parts.port
    except ValueError:
        return None


def split_origin(origin: str) -> tuple[str, str, int] | None:
    """Return scheme, name and port of an Origin, or None if it is invalid, such as "null".

    The scheme is always http, because a proxy may terminate TLS.
    """
    scheme, separator, rest = origin.strip().partition("://")
    host = split_host(rest) if separator and scheme.lower() in DEFAULT_PORTS else None
    return ("http", *host) if host else None


def is_from_proxy(origin: str, host: tuple[str, int]) -> bool:
    """Return True for a page under a proxy's name, whose requests may arrive under a local name."""
    parts = split_origin(origin)
    return parts is not None and in_host_list(parts[1:], settings.hosts())


def in_host_list(host: tuple[str, int], names: Iterable[str]) -> bool:
    """Return True if the host is in the list.

    "app.example.com" matches at the default ports, "app.example.com:8443" at that port, and
    "*.example.com" matches all subdomains.
    """
    return any(
        entry and entry[1] == host[1] and matches(host[0], entry[0])
        for entry in map(split_host, names)
    )


def matches(name: str, pattern: str) -> bool:
    return name == pattern or (pattern.startswith("*.") and name.endswith(pattern[1:]))


@cache
def own_names() -> tuple[str, ...]:
    """Names of this server: loopback names, those in Streamlit's configuration, and the machine's
    name if it listens on all addresses.
    """
    address = str(config.get_option("server.address") or "").lower()
    names = [*LOOPBACK, *(host.lower() for host in config.get_option("server.allowedHosts"))]
    if address in ALL_ADDRESSES:
        names += [socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"]
    else:
        names.append(address)
    if config.is_manually_set("browser.serverAddress"):
        names.append(str(config.get_option("browser.serverAddress")).lower())
    return tuple(names)


def headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def local_address(scope: Scope) -> str:
    server = scope.get("server")
    return str(server[0]).lower().removeprefix("::ffff:") if server and server[0] else "localhost"


async def refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        # not accepted yet, so the server answers 403
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    content = reason.encode()
    response_headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(content)),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": response_headers})
    await send({"type": "http.response.body", "body": content})


class VisitorCookie:
    """ASGI middleware that sets a secret cookie with the first page; active on a shared server
    only.
    """

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or not asks_for_page(scope)
            or has_cookie(scope)
            or settings.sharing() is None
        ):
            await self.app(scope, receive, send)
            return
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        cookie = (
            f"{COOKIE}={secrets.token_hex(16)}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; "
            f"SameSite=Lax{secure}"
        )

        async def with_cookie(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", cookie.encode())]
            await send(message)

        await self.app(scope, receive, with_cookie)


def asks_for_page(scope: Scope) -> bool:
    return scope["method"] == "GET" and any(
        "text/html" in accepted for accepted in headers(scope, b"accept")
    )


def has_cookie(scope: Scope) -> bool:
    for header in headers(scope, b"cookie"):
        try:
            if COOKIE in SimpleCookie(header):
                return True
        except CookieError:
            continue
    return False
