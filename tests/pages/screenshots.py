"""Takes the pictures in README anew, in light colours: python tests/pages/screenshots.py [FOLDER]

Two real runs of the bundled language model are made first, in a home of their own.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.pages.served import Visitor, browsing, finished, serving, visitor

WIDTH, HEIGHT = 1280, 960
PICTURES = Path(__file__).resolve().parents[2] / "assets" / "pictures"


def run_two(person: Visitor) -> list[str]:
    """4 and 3 bits."""
    person.open("start")
    person.widget("start-docs-lm").click()
    first = finished(person)
    person.turn_to("quantize")
    person.widget("quantize-round-to-nearest-bits", "slider").press("ArrowLeft")
    person.at_rest()
    person.widget("quantize-run").click()
    return [first, finished(person, other_than=first)]


def take(person: Visitor, page: str, query: str, folder: Path) -> None:
    person.open(page, query)
    person.page.wait_for_timeout(1500)  # figures fade in
    person.page.screenshot(path=folder / f"{page}.png")


def screenshots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as address, browsing() as browser:
        person = visitor(browser, address, WIDTH, height=HEIGHT)
        four, three = run_two(person)
        for page, query in {
            "start": f"?run={four}",
            "quantize": "",
            "prune": "",
            "factorize": "",
            "distill": "",
            "train": "",
            "pipeline": "",
            "model": "",
            "compare": f"?runs={three},{four}",
        }.items():
            take(person, page, query, folder)


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
