"""Requests under a foreign name or from a foreign page are refused on every route of a real
server.
"""

import http.client
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pages.widgets import server_guard
from pages.widgets.recipes.recipe_file import MAX_MEGABYTES
from pages.widgets.server_guard import COOKIE, own_names, refusal
from tests.cases import for_each
from tests.pages.served import serving

LOCAL = "127.0.0.1"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "streamlit",
}
REFUSED = "This server does not accept"
ROUTES = (
    "/",
    "/_stcore/host-config",
    "/media/none.png",
    "/component/none/index.html",
    "/_stcore/upload_file/session/file",
    "/static/none.js",
)


# --- names and origins -------------------------------------------------------------------------


@for_each(
    "host, origin",
    [
        ("localhost:8501", None),
        ("localhost:8501", "http://localhost:8501"),
        ("LOCALHOST:8501", "http://localhost:8501"),
        ("127.0.0.1:8501", "http://127.0.0.1:8501"),
        ("[::1]:8501", "http://[::1]:8501"),
        ("localhost:9000", "http://localhost:9000"),  # a forwarded port
        ("localhost", "http://localhost"),
    ],
)
def test_the_servers_own_names_and_pages_are_served(host, origin):
    assert refusal([host], [origin] if origin else [], LOCAL) == ""


@for_each(
    "host",
    [
        "evil.example",
        "evil.example:8501",
        "localhost.evil.example:8501",
        "localhost:8501@evil.example",
        "",
        "10.1.2.3:8501",
        "localhost:x",
        "localhost/../x",
    ],
)
def test_a_foreign_name_is_refused(host):
    assert "does not accept the host name" in refusal([host], [f"http://{host}"], LOCAL)
    assert "COMPRESSION_EXPLORER_HOSTS" in refusal([host], [], LOCAL)


@pytest.mark.parametrize("hosts", [[], ["localhost:8501", "evil.example"]], ids=["none", "two"])
def test_a_request_has_one_name(hosts):
    assert refusal(hosts, [], LOCAL)


@for_each(
    "origin",
    [
        "http://evil.example",
        "http://localhost:9999",
        "http://localhost",
        "null",
        "",
        "file://",
        "http://localhost:8501.evil.example",
    ],
)
def test_a_foreign_page_is_refused_under_the_servers_own_name(origin):
    assert "does not accept requests from" in refusal(["localhost:8501"], [origin], LOCAL)


def test_the_address_a_request_arrived_at_is_a_name_of_the_server():
    assert refusal(["10.1.2.3:8501"], ["http://10.1.2.3:8501"], "10.1.2.3") == ""


@for_each(
    "host, origin, served",
    [
        ("app.example.com", "https://app.example.com", True),  # a proxy that forwards the name
        ("localhost:8501", "https://app.example.com", True),  # one that does not
        ("a.example.org", "https://a.example.org", True),
        ("app.example.com:8443", "https://app.example.com:8443", False),
        ("example.org", "https://example.org", False),
        ("localhost:8501", "https://evil-example.org", False),
        ("other.example.net:8443", "https://other.example.net:8443", True),
    ],
)
def test_names_of_a_proxy_are_those_that_are_listed(monkeypatch, host, origin, served):
    monkeypatch.setenv(
        "COMPRESSION_EXPLORER_HOSTS", "app.example.com, *.example.org, other.example.net:8443"
    )
    assert (refusal([host], [origin], LOCAL) == "") == served


def test_a_server_on_all_addresses_also_has_the_machines_name(monkeypatch):
    options = {
        "server.address": "0.0.0.0",
        "server.allowedHosts": ["*.class.example"],
        "server.corsAllowedOrigins": ["https://portal.example"],
    }
    monkeypatch.setattr(server_guard.config, "get_option", lambda name: options.get(name))
    monkeypatch.setattr(server_guard.socket, "gethostname", lambda: "Classroom")
    own_names.cache_clear()
    try:
        assert (
            refusal(["classroom:8501"], ["http://classroom:8501"], LOCAL) == ""
            and refusal(["room.class.example"], [], LOCAL) == ""
        )
        assert refusal(["classroom:8501"], ["https://portal.example"], LOCAL) == "" and refusal(
            ["evil.example"], [], LOCAL
        )
    finally:
        own_names.cache_clear()


# --- a real server -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(new_home):
    with serving(new_home(), COMPRESSION_EXPLORER_SHARED="1") as address:
        yield urlsplit(address)


def answer(address, path="/", method="GET", body=None, **headers):
    """Status, headers and text of the response to a request with exactly these headers."""
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=300)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": address.netloc} | headers).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        with connection.getresponse() as response:
            text = "" if response.status == 101 else response.read().decode(errors="replace")
            return response.status, dict(response.getheaders()), text
    finally:
        connection.close()


def handshake(address, **headers):
    return answer(address, "/_stcore/stream", **WEBSOCKET, **headers)[0]


def test_a_websocket_opens_for_the_servers_own_page_alone(address):
    own = {"Origin": f"http://{address.netloc}"}
    assert handshake(address, **own) == 101
    for foreign in (
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Origin": "http://localhost:9999"},
        {"Origin": "http://evil.example"},
    ):
        assert handshake(address, **foreign) == 403


@for_each("path", ROUTES)
def test_no_route_answers_under_a_foreign_name_or_to_a_foreign_page(address, path):
    method = "PUT" if "upload" in path else "GET"
    assert REFUSED not in answer(address, path, method)[2]
    for foreign in ({"Host": "evil.example"}, {"Origin": "http://localhost:9999"}):
        status, _, text = answer(address, path, method, **foreign)
        assert status == 403 and REFUSED in text


def test_no_upload_is_larger_than_a_megabyte_whatever_the_browser_allows():
    """The server counts the bytes of every upload against its own option; the form's limit is
    checked by the browser only.
    """
    assert (
        tomllib.loads((Path(__file__).parents[3] / ".streamlit" / "config.toml").read_text())[
            "server"
        ]["maxUploadSize"]
        == MAX_MEGABYTES
    )


def test_a_load_balancer_may_ask_for_health_under_any_name(address):
    assert answer(address, "/_stcore/health", Host="10.0.0.7:8501")[0] == 200


def test_each_browser_of_a_shared_server_gets_one_secret(address):
    page = {"Accept": "text/html"}
    cookies = [answer(address, **page)[1].get("set-cookie", "") for _ in range(2)]
    assert all(
        cookie.startswith(f"{COOKIE}=") and "HttpOnly" in cookie and "SameSite=Lax" in cookie
        for cookie in cookies
    )
    assert cookies[0] != cookies[1]
    assert COOKIE not in answer(address, Cookie=cookies[0].partition(";")[0], **page)[1].get(
        "set-cookie", ""
    )
    assert COOKIE not in answer(address, "/_stcore/health")[1].get("set-cookie", "")
