"""Quick questions from the screen, answered by a worker that keeps the last models at hand."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Any

import torch

from engine.catalog.calibrated import Activations
from engine.catalog.distillation import FineTune
from engine.catalog.structured import Shrinking
from engine.catalog.technique import Technique
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.results.answers import Forecast, LayerView, ModelView, Ranges, WhatIf
from engine.results.tables import HistogramRow, LayerRow, LevelRow, ObserverRow, SpectrumRow, table
from engine.work.bench import Bench, Rows
from engine.work.calibration import Fold, Seen, Stream
from engine.work.calibration.gradients import Slopes, slopes_of
from engine.work.costs import Job, cost_of
from engine.work.layers import Layer, chosen
from engine.work.measure.error import Judged, histogram_rows, kept_row, level_rows
from engine.work.measure.size import written_bytes
from engine.work.measure.spectrum import spectrum
from engine.work.methods import outlined, plan, rebuild, scales_for, survey
from engine.work.methods.composed import compress_further, sketched
from engine.work.methods.quantization.observers import observer_rows
from engine.work.models import Folder, check_finite, resolve, tokenizer_of
from engine.work.opened import Opened, opened
from engine.work.quiet import ready
from engine.work.rebuilt import Rebuilt, Subject
from engine.work.refusals import refuse_steps
from engine.work.rewriting import changed_row, histogram, rebuilt_bytes
from engine.work.stored.weights import Dense, Stored
from engine.work.tasks import calibration_batches
from engine.work.tasks.calibration import Batch
from engine.work.tasks.progress import silent
from engine.work.tasks.tokens import positions
from engine.work.threads import one_thread
from engine.work.trial import Trial

LIVE_WEIGHTS = 1 << 21  # judged while a control is dragged; a larger layer is judged on its first rows
QUICK_RANGES, COARSER = ("absmax", "rms"), 4  # others are searched for, so a quarter of that is judged
LIVE_SAMPLES = 8  # calibration examples that a question looks at
LAYERS_AT_HAND = 8
MODELS_AT_HAND = 3
LOOKS_AT_HAND = 2
_models: OrderedDict[tuple, Opened] = OrderedDict()
_opening: dict[tuple, float] = {}  # seconds that it took
_spectra: dict[tuple, object] = {}
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
    """What a run would find out, before a page offers one: weights that are no numbers, a tokenizer that is missing or broken."""
    check_finite(folder)
    if folder.kind != "image-classification":
        tokenizer_of(folder)


def live_weights(how: Technique) -> int:
    return LIVE_WEIGHTS if getattr(how, "range", "absmax") in QUICK_RANGES else LIVE_WEIGHTS // COARSER


def layer_and_weight(model: Opened, name: str) -> tuple[Layer, torch.Tensor]:
    """Raises PlainError for a name no layer has."""
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if layer is None:
        raise PlainError(f"The model has no layer called {name[:80]!r}; choose one from the list.")
    return layer, model.model.get_submodule(name).stored.dense()


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
        folder.size_bytes,
        table((kept_row(layer, at.held_bytes(layer)) for layer in at.layers), LayerRow),
        folder.notes,
        positions(at.model.config) if folder.kind != "image-classification" else None,
    )


def layer_view(model: str, layer: str) -> LayerView:
    """The spectrum is kept: it takes seconds where the rest takes milliseconds."""
    ready()
    key, at = at_hand(model)
    known, weight = layer_and_weight(at, layer)
    if (*key, layer) not in _spectra:
        _spectra[*key, layer] = table(spectrum(layer, weight), SpectrumRow)
    return LayerView(
        table(histogram_rows(layer, "original", weight, weight.min().item(), weight.max().item()), HistogramRow),
        Judged(known, weight, weight).channels(),
        _spectra[*key, layer],
    )


def what_if(model: str, layer: str, step: dict, measured: dict | None = None, earlier: list[dict] | None = None) -> WhatIf:
    """What a step would do to one layer, now, after those that come ``earlier``. Very large layers are judged on their first rows.

    A step that looks at data sees a few calibration examples, of the task and calibration that are ``measured`` with; they run through
    the model once and are remembered.
    """
    ready()
    began = time.perf_counter()
    look = looked_at(model, layer, step, measured, earlier)
    judged = Judged(look.part, look.weight, look.stored.dense() / look.scales)
    inputs = look.seen.sample_vectors() if isinstance(look.seen, Seen) else None
    received = None if inputs is None else (inputs, look.stored.received(inputs / look.scales) * look.scales)
    if look.rebuilt:
        row, bins = changed_row(judged, look.stored, look.rebuilt, look.how.technique), histogram(judged, look.stored)
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


def looked_at(model: str, layer: str, step: dict, measured: dict | None = None, earlier: list[dict] | None = None) -> Look:
    """Computed now, and kept for whoever wants to look closer."""
    asked = Recipe.of({"model": model, "steps": [*(earlier or []), step], **(measured or {})})
    key, at = at_hand(model)
    known, weight = layer_and_weight(at, layer)
    rows = max(1, min(len(weight), live_weights(asked.steps[-1]) // weight.shape[1]))
    part, weight = replace(known, shape=(rows, *known.shape[1:])), weight[:rows].contiguous()
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
        stored, scales = tried(how, stored, seen, zeros)
        zeros = zeros or each.leaves == "zeros"
    return Look(asked.steps[-1], how, part, weight, seen, stored, scales)


def narrowed(asked: Recipe, key: tuple, at: Opened, layer: Layer) -> Look:
    """A layer without what a step takes out, chosen by the first calibration examples among all of the model."""
    how, held = asked.steps[-1], at.model.get_submodule(layer.name).stored
    subject = subject_of(asked, at)
    about = (*key, how.model_copy(update={name: 0 for name in ("share", "count") if hasattr(how, name)}), asked.layers)
    if how.needs == "nothing":
        small = rebuild(how, subject)
    else:
        by = remembered(about, asked, lambda batches: survey(how, replace(subject, trial=trial_on(batches, asked, at))))
        small = rebuild(how, subject, by)
    return Look(how, how, layer, held.dense(torch.float32), None, small.narrowed(layer, held), 1.0, small)


def subject_of(asked: Recipe, at: Opened) -> Subject:
    return Subject(at, resolve(asked.model), frozenset(layer.name for layer in chosen(at.layers, asked.layers)))


def trial_on(batches: list[Batch], asked: Recipe, at: Opened) -> Trial:
    """With the model at hand, which computes on the CPU."""
    here = asked.model_copy(update={"device": "cpu", "dtype": "float32"})
    return Trial(Bench(here, resolve(asked.model)), at, batches, Rows())


def data_for(how: Technique, key: tuple, at: Opened, layer: str, asked: Recipe, rows: int) -> Seen | Slopes | None:
    """What a technique looks at of a layer, of its first rows where that matters."""
    if how.needs == "gradients":
        return slopes_by(key, at, layer, asked).of_rows(rows)
    return None if how.needs == "nothing" else seen_by(key, at, layer, asked)


def look_at_hand(model: str, layer: str, step: dict, measured: dict | None = None) -> Look:
    """The same, not computed again where it was asked for a moment ago."""
    asked = Recipe.of({"model": model, "steps": [step], **(measured or {})})
    mine = (model, resolve(model).revision, layer, asked.model_dump_json())
    return _looks.get(mine) or looked_at(model, layer, step, measured)


def tried(how: Technique, held: Stored, seen: Seen | Slopes | None, keep_zeros: bool) -> tuple[Stored, torch.Tensor | float]:
    """One layer as it would be stored, and the scales of its columns, as if a norm before it could take them."""
    weight = held.dense()
    answer = None if seen is None else scales_for(how, Fold("", (), from_norm=True), [weight], seen)
    if answer is None:
        return compress_further(how, held, weight, seen, keep_zeros), 1.0
    return compress_further(how, held, weight * answer[0], seen.scaled(answer[0]), keep_zeros), answer[0]


def ranges(model: str, layer: str, step: dict, measured: dict | None = None, scales: list[float] | None = None) -> Ranges:
    """What each observer would choose for one layer's inputs, seen as by ``what_if``.

    ``scales``, one for each input channel, are those a run divided the inputs by; without them the technique is asked for its own.
    """
    ready()
    asked = Recipe.of({"model": model, "steps": [step], **(measured or {})})
    key, at = at_hand(model)
    known, weight = layer_and_weight(at, layer)
    how = plan(asked.steps[0], [known])[layer]
    if not isinstance(how, Activations):
        raise PlainError(f"{how.title} chooses no range for a layer's inputs; ask about a technique that quantizes activations.")
    seen = received(how, weight, seen_by(key, at, layer, asked), scales)
    values = seen.sample()
    histogram = histogram_rows(layer, "original", values, values.min().item(), values.max().item())
    with one_thread():
        observers = observer_rows(layer, seen, how)
    return Ranges(table(histogram, HistogramRow), table(observers, ObserverRow), min(LIVE_SAMPLES, asked.calibration.samples))


def received(how: Activations, weight: torch.Tensor, seen: Seen, scales: list[float] | None) -> Seen:
    """What the layer gets once its inputs are divided by the scales. Raises PlainError for scales of another width."""
    if scales is None:
        answer = scales_for(how, Fold("", (), from_norm=True), [weight], seen)
        return seen if answer is None else seen.scaled(answer[0])
    if len(scales) * seen.area != seen.width:
        raise PlainError(f"{len(scales)} scales were given for {seen.width // seen.area} input channels; give one for each.")
    return seen.scaled(torch.tensor(scales, device=seen.device).repeat_interleave(seen.area))


def seen_by(key: tuple, at: Opened, layer: str, asked: Recipe) -> Seen:
    """What one layer of the uncompressed model sees of the first calibration examples. Raises PlainError where nothing can be seen."""
    wants_gram = any(step.needs == "gram" for step in asked.steps)
    seen = remembered((*key, layer, wants_gram), asked, lambda batches: Stream(at.model, batches, at.device).look("", [layer], wants_gram).get(layer))
    if seen is None:
        raise PlainError(f"The inputs of {layer} cannot be seen (an embedding or a grouped convolution); choose another layer.")
    return seen


def slopes_by(key: tuple, at: Opened, layer: str, asked: Recipe) -> Slopes:
    """Slopes of the loss by one layer's weights, on the first calibration examples. Raises PlainError where it has none."""
    found = remembered((*key, layer, "slopes"), asked, lambda batches: slopes_of(at.model, [layer], batches, at.device, silent).get(layer))
    if found is None:
        raise PlainError(f"The loss does not depend on {layer} on these examples; choose another layer.")
    return found


def remembered(about: tuple, asked: Recipe, look: Callable[[list[Batch]], Seen | Slopes | None]) -> Any:
    """What was looked at on the first calibration examples, the last few of such looks."""
    calibration = asked.calibration.model_copy(update={"samples": min(LIVE_SAMPLES, asked.calibration.samples)})
    mine = (*about, calibration, asked.task)
    if mine not in _seen:
        _seen[mine] = look(calibration_batches(calibration, asked.task, resolve(asked.model)))
        while len(_seen) > LAYERS_AT_HAND:
            _seen.popitem(last=False)
    return _seen[mine]


def forecast(recipe: dict, past: dict | None = None) -> Forecast:
    """Size to the byte, unless scales turn out to need float32; time and memory within a factor of two.

    ``past``: recipe, seconds and peak_rss_bytes of the latest run like this one.
    """
    ready()
    asked = Recipe.of(recipe)
    folder = resolve(asked.model)
    key, at = at_hand(asked.model)
    refuse_steps(asked, folder, at_hand=True)
    steps = shaping(asked.steps)
    heir = outlined(steps[0], subject_of(asked, at)) if steps else None
    if heir:
        return of_heir(asked, folder, key, heir, steps[1:], past)
    small = rebuild(steps[0], subject_of(asked, at)) if steps else None
    rest, layers = steps[1:] if small else steps, [after for _, after in small.layers(at.layers)] if small else at.layers
    targets = chosen(layers, asked.layers) if asked.steps else []
    planned = [plan(step, targets) for step in rest]
    plans = blueprints(planned, targets) or (small.sketches(at) if small else {})
    size = rebuilt_bytes(at, small, plans if rest else {}) if small else written_bytes(at, plans) if plans else folder.size_bytes
    bits = bits_per_weight(plans or {layer.name: at.model.get_submodule(layer.name).stored for layer in targets or at.layers if not layer.tied_to})
    changed = sum(small.changes(layer.name) for layer in chosen(at.layers, asked.layers)) if small and not rest else len(targets)
    cost, open_ended = cost_of(job_of(asked, folder, key, planned), past), any(step.size_depends_on_data for step in asked.steps)
    shrinks = any(step.size_is_at_most for step in asked.steps)
    return Forecast(size, bits, folder.size_bytes / size, cost.seconds, cost.peak_rss_bytes, changed, open_ended, shrinks)


def shaping(steps: Sequence[Technique]) -> Sequence[Technique]:
    """Those that say what will be stored: others leave shapes and formats as they are, or what they store is stored anew by the next."""
    left = [step for step in steps if not isinstance(step, FineTune)]
    return list(dropwhile(lambda step: step.leaves == "dense", left)) or left[-1:] or steps[:1]


def of_heir(asked: Recipe, folder: Folder, key: tuple, heir: Opened, rest: Sequence[Technique], past: dict | None) -> Forecast:
    """Where another model takes the first one's place, which later steps compress."""
    targets = chosen(heir.layers, asked.layers)
    planned = [plan(step, targets) for step in rest]
    plans = blueprints(planned, targets)
    size = written_bytes(heir, plans)
    held = plans or {layer.name: heir.model.get_submodule(layer.name).stored for layer in heir.layers if not layer.tied_to}
    cost, open_ended = cost_of(job_of(asked, folder, key, planned), past), any(step.size_depends_on_data for step in asked.steps)
    shrinks = any(step.size_is_at_most for step in asked.steps)
    return Forecast(size, bits_per_weight(held), folder.size_bytes / size, cost.seconds, cost.peak_rss_bytes, len(held), open_ended, shrinks)


def bits_per_weight(layers: dict[str, Stored]) -> float:
    return sum(stored.nbytes for stored in layers.values()) * 8 / sum(out * in_ for out, in_ in (stored.shape for stored in layers.values()))


def job_of(asked: Recipe, folder: Folder, key: tuple, planned: list[dict[str, Technique]]) -> Job:
    """The last step, with those before it."""
    first = Job(asked, folder, key, _models[key], {}, _opening[key])
    recipes = [asked.model_copy(update={"steps": (step,)}) for step in asked.steps]
    settings = [{}] * (len(recipes) - len(planned)) + planned  # a step that takes structures out has none
    each = [replace(first, recipe=recipe, settings=mine) for recipe, mine in zip(recipes, settings, strict=True)]
    return replace(each[-1], earlier=tuple(each[:-1])) if each else first


def blueprints(planned: list[dict[str, Technique]], targets: list[Layer]) -> dict[str, Stored]:
    """What all steps together will store for each layer; ``planned``: the setting of each layer, step by step."""
    return {layer.name: sketched([settings[layer.name] for settings in planned], layer.matrix_shape) for layer in targets if planned}


def doctor() -> dict:
    """What this worker computes with."""
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
