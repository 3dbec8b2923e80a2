"""Notes of a forecast on included embeddings (layers.include) that a step leaves unchanged or
treats differently.
"""

from engine.calibration.activation_stats import has_observable_inputs, input_reader
from engine.config.technique import Technique
from engine.models.layers import Layer, included_embeddings, skip_reason
from engine.models.loaded_model import LoadedModel
from engine.pipeline.layer_report import UNSCALED, why_not_seen
from engine.pipeline.pruned_writer import UNTOUCHED
from engine.recipe import Recipe
from engine.techniques.implementations import plan


def included_layer_notes(recipe: Recipe, original: LoadedModel) -> tuple[str, ...]:
    """Return a note for each such step and embedding, worded as the notes of the run."""
    notes = []
    for layer in included_embeddings(original.layers, recipe.layers):
        for step in recipe.steps:
            if reason := skip_reason(
                layer, original.tied_layers, recipe.layers
            ) or why_left_unchanged(step, layer, original):
                notes.append(
                    f"{layer.name} is included (layers.include), but {step.title} leaves it "
                    f"as it is: {reason}."
                )
            elif step.rescales_inputs:
                notes.append(
                    f"{layer.name} is included (layers.include), but {step.title} treats it "
                    f"{UNSCALED}."
                )
    return tuple(dict.fromkeys(notes))


def why_left_unchanged(step: Technique, layer: Layer, original: LoadedModel) -> str:
    """Reason why a step leaves an embedding unchanged; empty if it does not."""
    if step.removes_structures:
        return UNTOUCHED
    setting, reader = plan(step, [layer])[layer.name], input_reader(original.model, layer.name)
    by_inputs = setting.needs in ("range", "gram") and not setting.trains
    return why_not_seen(setting, reader) if by_inputs and not has_observable_inputs(reader) else ""
