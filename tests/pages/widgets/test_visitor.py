from engine.session.visitors import visitor_id
from pages.widgets.visitor import visitor


def test_a_visitor_is_identified_by_the_cookie_on_a_shared_server_only(shared_server, monkeypatch):
    assert visitor() == visitor_id(shared_server)
    monkeypatch.setenv("COMPRESSION_EXPLORER_SHARED", "0")
    assert visitor() == ""
