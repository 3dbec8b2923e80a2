"""Takes the pictures in README.md and docs/pages.md again, in light colors:
python tests/pages/screenshots.py [FOLDER]

Real runs of the bundled language model are made for them, in a home of their own.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.pages.served import Visitor, browsing, serving, visitor, wait_for_results

WIDTH, HEIGHT = 1280, 960
PICTURES = Path(__file__).resolve().parents[2] / "assets" / "pictures"


def run_two(person: Visitor) -> list[str]:
    """4 and 3 bits."""
    person.open("start")
    person.widget("start-docs-lm").click()
    first = wait_for_results(person)
    person.turn_to("quantize")
    person.widget("quantize-round-to-nearest-bits", "slider").press("ArrowLeft")
    person.at_rest()
    person.widget("quantize-run").click()
    return [first, wait_for_results(person, other_than=first)]


def run_a_chain(person: Visitor, folder: Path) -> None:
    """Pruned, then rounded: the whole page, since what each step saved stands at its end."""
    person.open("prune")
    person.widget("prune-pipeline").click()
    person.wait_until_settled("pipeline")
    person.widget("chain-add").click()
    person.at_rest()
    person.widget("step-2-options").click()
    person.at_rest()
    person.widget("pipeline-run").click()
    wait_for_results(person)
    person.screenshot(folder / "pipeline.png")
    person.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def take(person: Visitor, page: str, query: str, folder: Path) -> None:
    person.open(page, query)
    person.page.wait_for_timeout(1500)  # figures fade in
    person.page.screenshot(path=folder / f"{page}.png")


def screenshots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home)) as address,
        browsing() as browser,
    ):
        person = visitor(browser, address, WIDTH, height=HEIGHT)
        four, three = run_two(person)
        for page, query in {
            "start": f"?run={four}",
            "quantize": "",
            "prune": "",
            "factorize": "",
            "distill": "",
            "train": "",
            "model": "",
            "compare": f"?runs={three},{four}",
        }.items():
            take(person, page, query, folder)
        run_a_chain(person, folder)


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
