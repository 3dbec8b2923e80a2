"""The app in a real browser against a real server: the way the user goes, and what they see there.

SCREENSHOTS=folder keeps a picture of every page, narrow and wide, light and dark.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from engine.recipe import Recipe
from tests.cases import for_each
from tests.pages.served import (
    MENU,
    Visitor,
    browsing,
    chromium,
    serving,
    visitor,
    wait_for_results,
)
from tests.pages.sessions import PAGES, ROOT

pytestmark = pytest.mark.browser

TOKENS = "2048"  # enough for a number, and quick
VIEWS = {
    "Layers": 1,
    "Weights": 1,
    "Levels": 1,
    "Channels": 1,
    "Bits": 1,
    "Bytes": 1,
    "Steps": 1,
    "Text": 0,
    "Recipe": 0,
}  # figures of each
SEEING_VIEWS = ("Inputs", "Alpha search", "Outliers", "Ranges")  # of a run that looked at data
SMOOTHQUANT = {
    "task": {"kind": "language-modeling", "tokens": int(TOKENS)},
    "calibration": {"samples": 4, "context": 64},
    "steps": [{"technique": "smoothquant", "automatic": True}],
}
UNDRAWN = (
    "plots => plots.filter(plot => !plot.querySelector('svg.main-svg path') || "
    "plot.getBoundingClientRect().height < 50).length"
)
TOO_WIDE = """() => [document.documentElement, document.querySelector('[data-testid=stMain]')]
    .map(box => box.scrollWidth - Math.min(box.clientWidth, innerWidth)).filter(over => over > 0)"""
# Contrast of headings, numbers and the main button with what is behind it, after WCAG 2; colors are
# painted, since they come in many notations.
FAINT = """least => {
    const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
    const pen = canvas.getContext('2d', {willReadFrequently: true});
    const painted = color => {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = color;
        pen.fillRect(0, 0, 1, 1);
        return pen.getImageData(0, 0, 1, 1).data;
    };
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = color => [0.2126, 0.7152, 0.0722].reduce(
        (sum, share, i) => sum + share * linear(painted(color)[i] / 255), 0);
    const ground = box => getComputedStyle(box).backgroundColor;
    const behind = box => !box ? 'white'
        : painted(ground(box))[3] > 250 ? ground(box) : behind(box.parentElement);
    const contrast = box => {
        const both = [light(getComputedStyle(box).color), light(behind(box))];
        const [most, least] = both.sort((a, b) => b - a);
        return (most + 0.05) / (least + 0.05);
    };
    const words = document.querySelectorAll(
        'h1, h2, h3, h4, [data-testid=stMetricValue], [data-testid=stBaseButton-primary]');
    return [...words].filter(box => contrast(box) < least).map(box => box.innerText);
}"""


@pytest.fixture(scope="module")
def address(kept_apart) -> Iterator[str]:
    with serving(kept_apart) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "There is no Chromium here; install the package chromium."
        )
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def person(browser, address) -> Iterator[Visitor]:
    """Somebody who is first to come to this server, and by the address of Quantize; they ask for a
    short measurement.
    """
    person = visitor(browser, address)
    person.open("quantize")
    ask_for_few_tokens(person)
    yield person
    person.close()


@pytest.fixture(scope="module")
def two_runs(person) -> list[str]:
    """Their ids: the example on Start, and 3 bits on Quantize."""
    person.turn_to("start")
    person.widget("start-docs-lm").click()
    first = wait_for_results(person)
    person.turn_to("quantize")
    person.widget("quantize-round-to-nearest-bits", "slider").press("ArrowLeft")
    person.at_rest()
    person.widget("quantize-run").click()
    return [first, wait_for_results(person, other_than=first)]


@pytest.fixture(scope="module")
def run_from_a_shell(kept_apart, address) -> str:
    """The id of a SmoothQuant run."""
    (kept_apart / "recipe.yaml").write_text(Recipe.from_dict(SMOOTHQUANT).to_yaml())
    command = [sys.executable, "-m", "engine", "run", str(kept_apart / "recipe.yaml"), "--json"]
    said = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"COMPRESSION_EXPLORER_HOME": str(kept_apart)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(said.stdout)["run"]


@pytest.fixture(scope="module")
def reader(browser, address) -> Iterator[Visitor]:
    """Somebody who only looks at what was run."""
    reader = visitor(browser, address)
    yield reader
    reader.close()
    assert reader.complaints == []


@pytest.fixture
def visit(browser, address):
    """Opens a browser of somebody else; what it complained about fails the test."""
    visitors = []

    def visit(**look) -> Visitor:
        visitors.append(visitor(browser, address, **look))
        return visitors[-1]

    yield visit
    for one in visitors:
        one.close()
    assert [one.complaints for one in visitors if one.complaints] == []


# The last step that any curve has reached.
LAST_STEP = """() => Math.max(0, ...[...document.querySelectorAll(".js-plotly-plot")].flatMap(
    figure => (figure._fullData ?? []).flatMap(
        line => [...(line.x ?? [])].filter(Number.isFinite))))"""


def ask_for_few_tokens(person: Visitor) -> None:
    person.page.get_by_text("Data, protocol and layers").click()
    tokens = person.page.get_by_role("spinbutton", name="Tokens to evaluate")
    tokens.fill(TOKENS)
    tokens.press("Enter")
    person.at_rest()


def wait_for_figures(person: Visitor, at_least: int) -> None:
    expect(person.figures().nth(at_least - 1)).to_be_visible()
    person.at_rest()
    assert person.figures().evaluate_all(UNDRAWN) == 0


# --- the way of one person ------------------------------------------------------------------------


def test_a_first_visit_to_another_page_than_start_shows_the_whole_app(person):
    for name in PAGES:
        expect(person.page.get_by_role("link", name=MENU[name], exact=True)).to_be_visible()
    expect(person.page.get_by_role("combobox", name="Model", exact=True)).to_be_visible()


def test_the_first_click_shows_progress_then_numbers(visit):
    person = visit()
    person.open("start")
    person.widget("start-digits-cnn").click()
    expect(person.page.get_by_role("progressbar")).to_be_visible()
    wait_for_results(person)


def test_a_student_is_watched_also_after_a_refresh_and_cancelled_it_is_kept_at_its_best(visit):
    person = visit()
    person.open("distill", "?model=bundled:digits-cnn")
    person.widget("distill-distill-steps", "slider").press("End")
    person.at_rest()
    person.widget("distill-run").click()
    step = 0
    for _ in range(2):
        expect(person.page.get_by_text("Training loss and quality")).to_be_visible()
        for _ in range(2):
            person.page.wait_for_function(f"({LAST_STEP})() > {step}")
            step = person.page.evaluate(LAST_STEP)
        person.page.reload()
    person.widget("distill-cancel").click()
    expect(person.page.get_by_text("Training was ended at step")).to_be_visible()
    wait_for_figures(person, at_least=2)
    assert person.page.evaluate(LAST_STEP) >= step
    person.page.get_by_test_id("stButtonGroup").get_by_text("Recipe", exact=True).click()
    person.page.get_by_role("button", name="Use as the model").click()
    expect(person.page.get_by_text("/model · ResNetForImageClassification")).to_be_visible()


def test_every_view_of_a_result_is_drawn(two_runs, reader):
    reader.open("start", f"?run={two_runs[0]}")
    for view, figures in VIEWS.items():
        reader.page.get_by_test_id("stButtonGroup").get_by_text(view, exact=True).click()
        reader.at_rest()
        if figures:
            wait_for_figures(reader, figures)
        else:
            expect(reader.page.get_by_test_id("stCode").first).to_be_visible()


def test_every_view_of_a_run_that_looked_at_data_is_drawn(run_from_a_shell, reader):
    reader.open("start", f"?run={run_from_a_shell}")
    for view in SEEING_VIEWS:
        reader.page.get_by_test_id("stButtonGroup").get_by_text(view, exact=True).click()
        reader.at_rest()
        wait_for_figures(reader, at_least=1)


def test_every_figure_about_a_model_is_drawn(reader):
    for page, figures in (("model", 4), ("quantize", 2)):
        reader.open(page)
        wait_for_figures(reader, figures)


def test_two_runs_stand_side_by_side_and_still_do_after_a_refresh(two_runs, person):
    person.turn_to("compare")
    for _ in range(2):
        for run in two_runs:
            expect(person.page.get_by_test_id("stMultiSelect").get_by_text(run)).to_be_visible()
            assert run in person.page.url
        wait_for_figures(person, at_least=3)
        person.page.reload()
        person.wait_until_settled("compare")


def test_nothing_went_wrong_in_the_browser(two_runs, person):
    assert person.complaints == []


def test_a_click_on_the_map_puts_that_weight_under_the_microscope(visit):
    person = visit()
    person.open("quantize")
    person.page.get_by_text("Inspect individual weights").click()
    chart = person.page.locator(".st-key-quantize-weight-map-figure .js-plotly-plot")
    expect(chart).to_be_visible()
    person.at_rest()
    chart.scroll_into_view_if_needed()
    chart.locator(".nsewdrag").first.click()  # its middle
    expect(
        person.page.get_by_role("heading", name=re.compile(r"row 3[123], column 3[123] stored"))
    ).to_be_visible()


# --- others ---------------------------------------------------------------------------------------


def test_somebody_else_sees_the_same_runs(two_runs, visit):
    other = visit()
    other.open("runs")
    for run in two_runs:
        expect(other.page.get_by_test_id("stDataFrame").get_by_text(run)).to_have_count(1)


def test_a_run_goes_on_when_its_browser_is_closed(two_runs, visit, browser, address):
    person = visitor(browser, address)
    person.open("quantize")
    person.widget("quantize-round-to-nearest-bits", "slider").press("ArrowRight")
    person.at_rest()
    ask_for_few_tokens(person)
    person.widget("quantize-run").click()
    expect(person.page).to_have_url(re.compile("run="))
    run = re.search(r"run=([0-9a-z-]+)", person.page.url)[1]
    person.close()
    again = visit()
    again.open("start", f"?run={run}")
    assert wait_for_results(again) == run and run not in two_runs


# --- how it looks ---------------------------------------------------------------------------------


LOOKS = [(width, scheme) for scheme in ("light", "dark") for width in (390, 1280, 1920)]


@for_each("page", PAGES)
def test_nothing_is_cut_off_or_too_faint_to_read(page, two_runs, reader):
    reader.page.set_viewport_size({"width": LOOKS[0][0], "height": 900})
    reader.open(page, f"?run={two_runs[0]}" if page in ("start", "quantize") else "")
    for width, scheme in LOOKS:
        reader.page.emulate_media(color_scheme=scheme)
        reader.page.set_viewport_size({"width": width, "height": 900})
        reader.at_rest()
        assert reader.page.evaluate(TOO_WIDE) == [], (width, scheme)
        assert reader.page.evaluate(FAINT, 4.5) == [], (width, scheme)
        if folder := os.environ.get("SCREENSHOTS"):
            reader.screenshot(Path(folder) / f"{page}-{width}-{scheme}.png")


def test_the_page_follows_the_dark_color_scheme(reader):
    behind = []
    for scheme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=scheme)
        reader.open("runs")
        behind.append(
            reader.page.get_by_test_id("stApp").evaluate(
                "app => getComputedStyle(app).backgroundColor"
            )
        )
    assert behind[0] != behind[1]
