"""What a recipe asks for that cannot be, said before anything heavy is done; to be asked in a forecast too."""

from engine.errors import PlainError
from engine.recipe import Recipe
from engine.work.folders import Folder
from engine.work.methods import refuse_unfit
from engine.work.methods.training.learner import refuse_pages
from engine.work.methods.training.students import refuse_strangers
from engine.work.opened import compute_place


def refuse_steps(recipe: Recipe, folder: Folder, at_hand: bool = False) -> None:
    """Raises PlainError for the first step that this model, task or device does not allow. ``at_hand``: other models only where they need no
    download.
    """
    if folder.packed and recipe.steps:
        raise PlainError(f"{recipe.model} is already compressed; start from the original model, or leave out the steps to measure it.")
    device, _ = compute_place(recipe)
    for step in recipe.steps:
        refuse_unfit(step, recipe)
        refuse_strangers(step, folder, recipe.task, at_hand)
        refuse_pages(step, device)
