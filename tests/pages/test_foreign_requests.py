"""In a real browser, hostile names in a model and in stored runs are shown as text, and nothing is
requested from other hosts.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from engine.results.store.store import Store
from tests.pages import hostile
from tests.pages.served import Visitor, browsing, chromium, serving, visitor
from tests.tiny import tiny

pytestmark = pytest.mark.browser
VIEWS = ("Mistakes", "Written", "Curves", "Speed")


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory) -> str:
    folder = Path(tiny("llama", tmp_path_factory.mktemp("![zq](x)")))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [hostile.HOSTILE]}))
    return str(folder)


@pytest.fixture(scope="module")
def person(kept_apart) -> Iterator[Visitor]:
    if chromium() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "There is no Chromium here; install the package chromium."
        )
    store = Store(kept_apart)
    for number in (1, 2):
        store.save(hostile.hostile_run(number), hostile.hostile_tables())
    store.save(hostile.hostile_run(3, "failed"))
    with serving(kept_apart) as address, browsing() as browser:
        person = visitor(browser, address)
        yield person
        person.close()


def hosts(person: Visitor) -> set[str]:
    """Hosts from which the browser has requested something."""
    asked: set[str] = set()
    person.page.on("request", lambda request: asked.add(urlsplit(request.url).hostname or ""))
    return asked


def test_nothing_foreign_is_fetched_and_nothing_foreign_can_be_clicked(person, hostile_model):
    asked = hosts(person)
    person.open("model", f"?model={quote(hostile_model)}")
    assert hostile.HOSTILE.split()[0] in person.page.get_by_test_id("stMain").inner_text().replace(
        "\u2060", ""
    )
    for page, query in (
        ("runs", "?run=run-0003"),
        ("compare", "?runs=run-0001,run-0002"),
        ("runs", "?run=run-0001"),
    ):
        person.open(page, query)
        assert (
            person.page.locator(f"a[href*='{hostile.SITE}'], img[src*='{hostile.SITE}']").count()
            == 0
        ), page
    for view in VIEWS:
        person.page.get_by_test_id("stButtonGroup").get_by_text(view, exact=True).click()
        person.at_rest()
        assert (
            person.page.locator(f"a[href*='{hostile.SITE}'], img[src*='{hostile.SITE}']").count()
            == 0
        ), view
    for figure in person.figures().all()[:3]:
        figure.hover()
    person.page.wait_for_timeout(500)
    assert asked == {urlsplit(person.address).hostname}
