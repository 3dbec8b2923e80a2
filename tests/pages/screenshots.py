"""Takes the pictures in README again, in light colors: python tests/pages/screenshots.py [FOLDER]

Real runs of the bundled language model are made for them, in a home of their own.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.pages.served import Visitor, browsing, serving, visitor, wait_for_results

WIDTH, HEIGHT = 1280, 960
PICTURES = Path(__file__).resolve().parents[2] / "assets" / "pictures"


def run_two(user: Visitor) -> list[str]:
    """4 and 3 bits."""
    user.open("start")
    user.widget("start-docs-lm").click()
    first = wait_for_results(user)
    user.turn_to("quantize")
    user.widget("quantize-round-to-nearest-bits", "slider").press("ArrowLeft")
    user.at_rest()
    user.widget("quantize-run").click()
    return [first, wait_for_results(user, other_than=first)]


def run_a_chain(user: Visitor, folder: Path) -> None:
    """Pruned, then rounded: the whole page, since what each step saved stands at its end."""
    user.open("prune")
    user.widget("prune-pipeline").click()
    user.wait_until_settled("pipeline")
    user.widget("chain-add").click()
    user.at_rest()
    user.widget("step-2-options").click()
    user.at_rest()
    user.widget("pipeline-run").click()
    wait_for_results(user)
    user.picture(folder / "pipeline.png")
    user.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})


def take(user: Visitor, page: str, query: str, folder: Path) -> None:
    user.open(page, query)
    user.page.wait_for_timeout(1500)  # figures fade in
    user.page.screenshot(path=folder / f"{page}.png")


def screenshots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as home,
        serving(Path(home)) as address,
        browsing() as browser,
    ):
        user = visitor(browser, address, WIDTH, height=HEIGHT)
        four, three = run_two(user)
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
            take(user, page, query, folder)
        run_a_chain(user, folder)


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
