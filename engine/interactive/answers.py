"""Quick questions from the screen, answered by a worker that keeps the last models at hand."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Any

import torch

from engine.calibration import Fold, Seen, Stream
from engine.calibration.activation_stats import reader_of, seeable
from engine.calibration.gradient_stats import Slopes, slopes_of
from engine.config.technique import Technique
from engine.errors import PlainError
from engine.evaluation import calibration_batches
from engine.evaluation.calibration_batches import Batch
from engine.evaluation.progress import silent
from engine.forecast import Job, cost_of
from engine.forecast.data_volume import notes_on_data
from engine.measurement.error import Judged, histogram_rows, kept_row, level_rows
from engine.measurement.size import (
    bits_per_parameter,
    bits_per_weight,
    by_original_parameters,
    origin_of_rebuilt,
    written_bytes,
)
from engine.measurement.spectrum import spectrum
from engine.models.layers import Layer, chosen
from engine.models.loaded_model import Opened, opened, other_parts
from engine.models.loading import Folder, check_finite, resolve, tokenizer_of, told
from engine.models.origin import Origin
from engine.models.positions import usable_length
from engine.pipeline.included_layers import notes_on_included
from engine.pipeline.preflight import refuse_noise, refuse_steps
from engine.pipeline.pruned_writer import changed_row, histogram, rebuilt_bytes
from engine.recipe import Recipe
from engine.results.schema.query_results import Forecast, LayerView, ModelView, Ranges, WhatIf
from engine.results.schema.tables import (
    HistogramRow,
    LayerRow,
    LevelRow,
    ObserverRow,
    SpectrumRow,
    table,
)
from engine.runtime.threads import one_thread, threads_to_judge
from engine.runtime.worker_setup import ready
from engine.step.layer_swap import Trial
from engine.step.pruning_plan import Rebuilt, Subject
from engine.step.run_context import Bench, Rows
from engine.techniques.distillation.distill.config import FineTune
from engine.techniques.implementations import outlined, plan, rebuild, scales_for, survey
from engine.techniques.pruning.blocks.config import Blocks
from engine.techniques.pruning.blocks.method import differ_in_size
from engine.techniques.pruning.options import Shrinking
from engine.techniques.quantization.activations.config import Activations
from engine.techniques.quantization.observers import observer_rows
from engine.techniques.training.composed import compress_further, sketched
from engine.tensors.weights import Dense, Stored

# judged while a control is dragged; a larger layer is judged on its first rows
LIVE_WEIGHTS = 1 << 21
# others are searched for, so a quarter of that is judged
QUICK_RANGES, COARSER = ("absmax", "rms"), 4
LIVE_SAMPLES = 8  # calibration examples that a question looks at
BYTES_AT_HAND = 500_000_000  # cached layer inputs; at least one layer's, of any size
WEIGHTS_AT_HAND = 8  # layers whose first rows are cached in float32, at most 8 MB each
SPECTRA_AT_HAND = 256
MODELS_AT_HAND = 3
LOOKS_AT_HAND = 2
BLOCKS_DIFFER = (
    "The model's blocks differ in size, so the size that is left depends on which of them the "
    "calibration data chooses."
)
_models: OrderedDict[tuple, Opened] = OrderedDict()
_opening: dict[tuple, float] = {}  # seconds that it took
_spectra: OrderedDict[tuple, object] = OrderedDict()
_weights: OrderedDict[tuple, torch.Tensor] = OrderedDict()
_seen: OrderedDict[tuple, Seen | Slopes | None] = OrderedDict()
_looks: OrderedDict[tuple, "Look"] = OrderedDict()


def at_hand(reference: str) -> tuple[tuple, Opened]:
    """A model opened on the CPU and kept, with a key that changes when its files do."""
    folder = resolve(reference)
    key = (reference, folder.revision)
    if key not in _models:
        refuse_unusable(folder)
        began = time.perf_counter()
        _models[key] = opened(folder, torch.device("cpu"), torch.float32)
        _opening[key] = time.perf_counter() - began
        while len(_models) > MODELS_AT_HAND:
            _models.popitem(last=False)
    _models.move_to_end(key)
    return key, _models[key]


def refuse_unusable(folder: Folder) -> None:
    """Check what a run would check, before a page offers one: non-finite weights, a missing or
    invalid tokenizer.
    """
    check_finite(folder)
    if folder.kind != "image-classification":
        tokenizer_of(folder)


def live_weights(how: Technique) -> int:
    return (
        LIVE_WEIGHTS if getattr(how, "range", "absmax") in QUICK_RANGES else LIVE_WEIGHTS // COARSER
    )


def layer_named(model: Opened, name: str) -> Layer:
    """Raises PlainError for a name no layer has."""
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if layer is None:
        raise PlainError(f"The model has no layer called {name[:80]!r}; choose one from the list.")
    return layer


def layer_and_weight(model: Opened, name: str) -> tuple[Layer, torch.Tensor]:
    """Return a layer and its weight.

    Raises PlainError if there is no layer of that name.
    """
    return layer_named(model, name), model.model.get_submodule(name).stored.dense()


def first_rows(key: tuple, model: Opened, layer: Layer, rows: int) -> torch.Tensor:
    """First rows of a layer's weight, (rows, in_) float32. As many as one question may use are
    cached.
    """
    mine = (*key, layer.name)
    if mine not in _weights or len(_weights[mine]) < rows:
        weight = model.model.get_submodule(layer.name).stored.dense()
        _weights[mine] = weight[: max(rows, LIVE_WEIGHTS // max(1, weight.shape[1]))].clone()
        while len(_weights) > WEIGHTS_AT_HAND:
            _weights.popitem(last=False)
    _weights.move_to_end(mine)
    return _weights[mine][:rows].contiguous()


def model_view(model: str) -> ModelView:
    ready()
    folder = resolve(model)
    _, at = at_hand(model)
    return ModelView(
        model,
        folder.revision,
        folder.architecture,
        folder.kind,
        at.parameters,
        at.size_bytes,
        bits_per_weight(at),
        bits_per_parameter(at.size_bytes, at.origin),
        table(
            by_original_parameters(
                (kept_row(layer, at.held_bytes(layer)) for layer in at.layers), at
            ),
            LayerRow,
        ),
        (*folder.notes, *at.notes, *other_parts(at)),
        folder.packed,
        usable_length(at.model.config) if folder.kind != "image-classification" else None,
    )


def layer_view(model: str, layer: str) -> LayerView:
    """The spectrum is kept: it takes seconds where the rest takes milliseconds."""
    ready()
    key, at = at_hand(model)
    known, weight = layer_and_weight(at, layer)
    if (*key, layer) not in _spectra:
        _spectra[*key, layer] = table(spectrum(layer, weight), SpectrumRow)
        while len(_spectra) > SPECTRA_AT_HAND:
            _spectra.popitem(last=False)
    return LayerView(
        table(
            histogram_rows(layer, "original", weight, weight.min().item(), weight.max().item()),
            HistogramRow,
        ),
        Judged(known, weight, weight).channels(),
        _spectra[*key, layer],
    )


def what_if(
    model: str,
    layer: str,
    step: dict,
    measured: dict | None = None,
    earlier: list[dict] | None = None,
) -> WhatIf:
    """Effect of a step on one layer after the ``earlier`` steps. Very large layers are compared on
    their first rows.

    A step that looks at data sees a few calibration examples, of the task and calibration that are
    ``measured`` with; they run through
    the model once and are remembered.
    """
    ready()
    began = time.perf_counter()
    look = looked_at(model, layer, step, measured, earlier)
    with threads_to_judge(look.weight.numel()):
        return answer_of(look, layer, began)


def answer_of(look: "Look", layer: str, began: float) -> WhatIf:
    """Answer from a layer's data; ``began`` is when the question started."""
    judged = Judged(look.part, look.weight, look.stored.dense() / look.scales)
    inputs = look.seen.sample_vectors() if isinstance(look.seen, Seen) else None
    received = (
        None
        if inputs is None
        else (inputs, look.stored.received(inputs / look.scales) * look.scales)
    )
    if look.rebuilt:
        row, bins = (
            changed_row(judged, look.stored, look.rebuilt, look.how.technique),
            histogram(judged, look.stored),
        )
    else:
        row, bins = judged.row(look.stored, look.how.technique, received), judged.histogram()
    levels = level_rows(layer, look.stored) if isinstance(look.scales, float) else ()
    return WhatIf(
        row,
        table(bins, HistogramRow),
        table(levels, LevelRow),
        judged.channels(),
        (time.perf_counter() - began) * 1000,
        judged.original.numel(),
    )


@dataclass(frozen=True)
class Look:
    """One layer as a step would store it."""

    asked: Technique
    how: Technique  # this layer's setting
    part: Layer  # its first rows, where it is very large
    weight: torch.Tensor  # (out, in_) float32
    seen: Seen | Slopes | None
    stored: Stored
    scales: torch.Tensor | float  # what its columns were multiplied by before, (in_,)
    rebuilt: Rebuilt | None = None  # what stays of the whole model, where structures are taken out


def looked_at(
    model: str,
    layer: str,
    step: dict,
    measured: dict | None = None,
    earlier: list[dict] | None = None,
) -> Look:
    """Computed now, and kept for whoever wants to look closer."""
    asked = Recipe.of({"model": model, "steps": [*(earlier or []), step], **(measured or {})})
    key, at = at_hand(model)
    known = layer_named(at, layer)
    out, in_ = known.matrix_shape
    rows = max(1, min(out, live_weights(asked.steps[-1]) // max(1, in_)))
    part, weight = replace(known, shape=(rows, *known.shape[1:])), first_rows(key, at, known, rows)
    torch.manual_seed(asked.seed)
    mine = (*key, layer, asked.model_dump_json())
    if isinstance(asked.steps[-1], Shrinking):
        _looks[mine] = narrowed(asked, key, at, known)
    else:
        _looks[mine] = compressed(asked, key, at, part, weight)
    while len(_looks) > LOOKS_AT_HAND:
        _looks.popitem(last=False)
    return _looks[mine]


def compressed(asked: Recipe, key: tuple, at: Opened, part: Layer, weight: torch.Tensor) -> Look:
    """A layer after all steps that leave it in its shape."""
    stored, zeros = Dense(tuple(weight.shape), weight), False
    for each in (step for step in asked.steps if not isinstance(step, Shrinking)):
        how = plan(each, [part])[part.name]
        seen = data_for(how, key, at, part.name, asked, len(weight))
        with threads_to_judge(weight.numel()):
            stored, scales = tried(how, stored, seen, zeros)
        zeros = zeros or each.leaves == "zeros"
    return Look(asked.steps[-1], how, part, weight, seen, stored, scales)


def narrowed(asked: Recipe, key: tuple, at: Opened, layer: Layer) -> Look:
    """A layer without what a step takes out, chosen by the first calibration examples among all of
    the model.
    """
    how, held = asked.steps[-1], at.model.get_submodule(layer.name).stored
    subject = subject_of(asked, at)
    about = (
        *key,
        how.model_copy(update={name: 0 for name in ("share", "count") if hasattr(how, name)}),
        asked.layers,
    )
    if how.needs == "nothing":
        small = rebuild(how, subject)
    else:
        by = remembered(
            about,
            asked,
            lambda batches: survey(how, replace(subject, trial=trial_on(batches, asked, at))),
        )
        small = rebuild(how, subject, by)
    return Look(
        how, how, layer, held.dense(torch.float32), None, small.narrowed(layer, held), 1.0, small
    )


def subject_of(asked: Recipe, at: Opened) -> Subject:
    return Subject(
        at, resolve(asked.model), frozenset(layer.name for layer in chosen(at.layers, asked.layers))
    )


def trial_on(batches: list[Batch], asked: Recipe, at: Opened) -> Trial:
    """Trial with a cached model, computed on the CPU."""
    here = asked.model_copy(update={"device": "cpu", "dtype": "float32"})
    return Trial(Bench(here, resolve(asked.model)), at, batches, Rows())


def data_for(
    how: Technique, key: tuple, at: Opened, layer: str, asked: Recipe, rows: int
) -> Seen | Slopes | None:
    """Data that a technique uses for a layer, restricted to its first rows where that matters."""
    if how.needs == "gradients":
        return slopes_by(key, at, layer, asked).of_rows(rows)
    return None if how.needs == "nothing" else seen_by(key, at, layer, asked)


def look_at_hand(model: str, layer: str, step: dict, measured: dict | None = None) -> Look:
    """Cached result of ``data_for``."""
    asked = Recipe.of({"model": model, "steps": [step], **(measured or {})})
    mine = (model, resolve(model).revision, layer, asked.model_dump_json())
    return _looks.get(mine) or looked_at(model, layer, step, measured)


def tried(
    how: Technique, held: Stored, seen: Seen | Slopes | None, keep_zeros: bool
) -> tuple[Stored, torch.Tensor | float]:
    """One layer as it would be stored, and the scales of its columns, as if a norm before it could
    take them.
    """
    weight = held.dense()
    answer = None if seen is None else scales_for(how, Fold("", (), from_norm=True), [weight], seen)
    if answer is None:
        return compress_further(how, held, weight, seen, keep_zeros), 1.0
    return compress_further(
        how, held, weight * answer[0], seen.scaled(answer[0]), keep_zeros
    ), answer[0]


def ranges(
    model: str,
    layer: str,
    step: dict,
    measured: dict | None = None,
    scales: list[float] | None = None,
) -> Ranges:
    """Range that each observer would choose for one layer's inputs, sampled as in ``what_if``.

    ``scales``, one for each input channel, are those a run divided the inputs by; without them the
    technique is asked for its own.
    """
    ready()
    asked = Recipe.of({"model": model, "steps": [step], **(measured or {})})
    key, at = at_hand(model)
    known, weight = layer_and_weight(at, layer)
    how = plan(asked.steps[0], [known])[layer]
    if not isinstance(how, Activations):
        raise PlainError(
            f"{how.title} chooses no range for a layer's inputs; ask about a technique that "
            "quantizes activations."
        )
    seen = received(how, weight, seen_by(key, at, layer, asked), scales)
    values = seen.sample()
    histogram = histogram_rows(layer, "original", values, values.min().item(), values.max().item())
    with one_thread():
        observers = observer_rows(layer, seen, how)
    return Ranges(
        table(histogram, HistogramRow),
        table(observers, ObserverRow),
        min(LIVE_SAMPLES, asked.calibration.samples),
    )


def received(
    how: Activations, weight: torch.Tensor, seen: Seen, scales: list[float] | None
) -> Seen:
    """Inputs of the layer divided by the scales. Raises PlainError for scales of another width."""
    if scales is None:
        answer = scales_for(how, Fold("", (), from_norm=True), [weight], seen)
        return seen if answer is None else seen.scaled(answer[0])
    if len(scales) * seen.area != seen.width:
        raise PlainError(
            f"{len(scales)} scales were given for {seen.width // seen.area} input channels; "
            "give one for each."
        )
    return seen.scaled(torch.tensor(scales, device=seen.device).repeat_interleave(seen.area))


def seen_by(key: tuple, at: Opened, layer: str, asked: Recipe) -> Seen:
    """Input statistics of one layer of the uncompressed model on the first calibration examples.
    Raises PlainError if there are none.
    """
    wants_gram = any(step.needs == "gram" for step in asked.steps)
    seen = remembered(
        (*key, layer, wants_gram),
        asked,
        lambda batches: (
            Stream(at.model, batches, at.device).look("", [layer], wants_gram).get(layer)
        ),
    )
    if seen is None:
        raise PlainError(
            f"The inputs of {layer} cannot be seen (an embedding or a grouped convolution); "
            "choose another layer."
        )
    return seen


def slopes_by(key: tuple, at: Opened, layer: str, asked: Recipe) -> Slopes:
    """Gradients of the loss by one layer's weights, on the first calibration examples. Raises
    PlainError where it has none.
    """
    found = remembered(
        (*key, layer, "slopes"),
        asked,
        lambda batches: slopes_of(at.model, [layer], batches, at.device, silent).get(layer),
    )
    if found is None:
        raise PlainError(
            f"The loss does not depend on {layer} on these examples; choose another layer."
        )
    return found


def remembered(
    about: tuple, asked: Recipe, look: Callable[[list[Batch]], Seen | Slopes | None]
) -> Any:
    """Cache of the last few results on the first calibration examples."""
    calibration = asked.calibration.model_copy(
        update={"samples": min(LIVE_SAMPLES, asked.calibration.samples)}
    )
    mine = (*about, calibration, asked.task)
    if mine not in _seen:
        folder = resolve(asked.model)
        batches = calibration_batches(calibration, asked.task, folder)
        with told(folder, f"{folder} cannot process the calibration data"):
            _seen[mine] = look(batches)
        while len(_seen) > 1 and sum(map(tensor_bytes, _seen.values())) > BYTES_AT_HAND:
            _seen.popitem(last=False)
    _seen.move_to_end(mine)
    return _seen[mine]


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in an object's fields, lists and mappings."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(tensor_bytes, value))
    return tensor_bytes(vars(value)) if hasattr(value, "__dict__") else 0


def forecast(recipe: dict, past: dict | None = None) -> Forecast:
    """Size to the byte, unless scales turn out to need float32; time and memory within a factor of
    two.

    ``past``: recipe, seconds and peak_rss_bytes of the latest run like this one.
    """
    ready()
    asked = Recipe.of(recipe)
    folder = resolve(asked.model)
    key, at = at_hand(asked.model)
    refuse_steps(asked, folder, at_hand=True)
    ahead = of_steps(asked, folder, key, at, past)
    notes, tokens = notes_on_data(asked, folder)
    for step in asked.steps:
        refuse_noise(step, chosen(at.layers, asked.layers), tokens)
    differ = any(isinstance(step, Blocks) for step in asked.steps) and differ_in_size(
        subject_of(asked, at)
    )
    return replace(
        ahead, notes=(*notes, *notes_on_included(asked, at), *([BLOCKS_DIFFER] if differ else []))
    )


def of_steps(asked: Recipe, folder: Folder, key: tuple, at: Opened, past: dict | None) -> Forecast:
    """Forecast of size, time and memory."""
    steps = shaping(asked.steps)
    heir = outlined(steps[0], subject_of(asked, at)) if steps else None
    if heir:
        return of_heir(asked, folder, key, heir, steps[1:], past)
    small = rebuild(steps[0], subject_of(asked, at)) if steps else None
    rest, layers = (
        steps[1:] if small else steps,
        [after for _, after in small.layers(at.layers)] if small else at.layers,
    )
    targets = chosen(layers, asked.layers) if asked.steps else []
    planned = [plan(step, targets) for step in rest]
    plans = blueprints(planned, targets, at)
    size = (
        rebuilt_bytes(at, small, plans)
        if small
        else written_bytes(at, plans)
        if plans
        else at.size_bytes
    )
    origin = origin_of_rebuilt(at, small) if small else at.origin
    held = (
        {
            after.name: small.sketch(layer, stored_in(at, layer))
            for layer, after in small.layers(at.layers)
        }
        if small
        else {}
    )
    held = held or {layer.name: stored_in(at, layer) for layer in at.layers}
    bits = planned_bits_per_weight(held | plans, layers, plans.keys(), origin)
    changed = (
        sum(small.changes(layer.name) for layer in chosen(at.layers, asked.layers))
        if small and not rest
        else len(plans)
    )
    cost, open_ended = (
        cost_of(job_of(asked, folder, key, planned), past),
        any(step.size_depends_on_data for step in asked.steps),
    )
    shrinks = any(step.size_is_at_most for step in asked.steps)
    in_all = bits_per_parameter(size, origin)
    return Forecast(
        size,
        bits,
        in_all,
        at.size_bytes / size,
        cost.seconds,
        cost.peak_rss_bytes,
        changed,
        open_ended,
        shrinks,
    )


def shaping(steps: Sequence[Technique]) -> Sequence[Technique]:
    """Steps that determine the stored format: others keep shapes and formats, or the next step
    stores their result again.
    """
    left = [step for step in steps if not isinstance(step, FineTune)]
    return list(dropwhile(lambda step: step.leaves == "dense", left)) or left[-1:] or steps[:1]


def of_heir(
    asked: Recipe,
    folder: Folder,
    key: tuple,
    heir: Opened,
    rest: Sequence[Technique],
    past: dict | None,
) -> Forecast:
    """Forecast for a replacement model, which later steps compress."""
    targets = chosen(heir.layers, asked.layers)
    planned = [plan(step, targets) for step in rest]
    plans = blueprints(planned, targets, heir)
    size = written_bytes(heir, plans)
    held = {
        layer.name: stored_in(heir, layer) for layer in heir.layers if not layer.tied_to
    } | plans
    bits = planned_bits_per_weight(held, heir.layers, set(plans), heir.origin)
    cost, open_ended = (
        cost_of(job_of(asked, folder, key, planned), past),
        any(step.size_depends_on_data for step in asked.steps),
    )
    shrinks = any(step.size_is_at_most for step in asked.steps)
    in_all, changed = bits_per_parameter(size, heir.origin), len(plans or held)
    return Forecast(
        size,
        bits,
        in_all,
        _models[key].size_bytes / size,
        cost.seconds,
        cost.peak_rss_bytes,
        changed,
        open_ended,
        shrinks,
    )


def stored_in(at: Opened, layer: Layer) -> Stored:
    return at.model.get_submodule(layer.name).stored


def planned_bits_per_weight(
    held: dict[str, Stored], layers: list[Layer], targets: set[str], origin: Origin
) -> float:
    """Forecast of ``bits_per_weight``.

    ``held``: planned storage of all layers; ``targets``: layers compressed in their present shapes;
    ``origin``: counts before these steps.
    """
    counts = {
        layer.name: origin.compressed.get(layer.name, layer.parameters)
        for layer in layers
        if not layer.tied_to
    }
    compressed = (
        targets | origin.compressed.keys()
        if targets or origin.compressed_parameters
        else counts.keys()
    )
    return (
        sum(held[name].nbytes for name in compressed)
        * 8
        / (sum(counts.get(name, 0) for name in compressed) + origin.removed)
    )


def job_of(asked: Recipe, folder: Folder, key: tuple, planned: list[dict[str, Technique]]) -> Job:
    """The last step, with those before it."""
    first = Job(asked, folder, key, _models[key], {}, _opening[key])
    recipes = [asked.model_copy(update={"steps": (step,)}) for step in asked.steps]
    # a step that takes structures out has none
    settings = [{}] * (len(recipes) - len(planned)) + planned
    each = [
        replace(first, recipe=recipe, settings=mine)
        for recipe, mine in zip(recipes, settings, strict=True)
    ]
    return replace(each[-1], earlier=tuple(each[:-1])) if each else first


def blueprints(
    planned: list[dict[str, Technique]], targets: list[Layer], at: Opened
) -> dict[str, Stored]:
    """Planned storage after all steps of each layer that any of them changes; ``planned``: the
    setting of each layer, step by step.
    """
    steps = {
        layer.name: [
            mine for settings in planned if sees(mine := settings[layer.name], layer.name, at)
        ]
        for layer in targets
    }
    return {
        layer.name: sketched(steps[layer.name], layer.matrix_shape)
        for layer in targets
        if steps[layer.name]
    }


def sees(setting: Technique, name: str, at: Opened) -> bool:
    """Return True if the technique needs no layer inputs or can observe them; otherwise the layer
    is left unchanged.
    """
    return (
        setting.trains
        or setting.needs not in ("range", "gram")
        or seeable(reader_of(at.model, name))
    )


def doctor() -> dict:
    """Versions, device and memory of this worker."""
    ready()
    import transformers

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
        "cuda": cuda,
        "threads": torch.get_num_threads(),
        "pid": os.getpid(),
        "versions": {"torch": str(torch.__version__), "transformers": transformers.__version__},
    }
