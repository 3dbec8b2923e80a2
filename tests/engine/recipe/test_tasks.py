from engine.recipe import Recipe
from engine.recipe.tasks import LanguageModeling


def test_a_recipe_from_before_bos_keeps_its_key_and_the_new_default_has_another():
    never, auto, always = (
        Recipe(task=LanguageModeling(bos=bos)) for bos in ("never", "auto", "always")
    )
    assert len({never.key(), auto.key(), always.key()}) == 3
    assert '"bos"' not in never.model_dump_json(exclude=never.default_fields)
    assert Recipe.from_dict({"task": {"kind": "language-modeling"}}) == auto
