"""Bytes that a run holds at its most: the process, the model's file, and the largest of its stages."""

import psutil

from engine.catalog.tasks import ImageClassification, LanguageModeling
from engine.work.bench import HELD_DENSE
from engine.work.costs.demands import training_of, trials_of
from engine.work.costs.job import Job
from engine.work.costs.seconds import share
from engine.work.layers import blocks_of
from engine.work.measure.latency import MODEL_BYTES
from engine.work.opened import compute_place
from engine.work.stored.modules import dense_bytes
from engine.work.tasks.calibration import ROWS
from engine.work.tasks.perplexity import AT_ONCE, LOGITS_BYTES
from engine.work.trial import LOGITS_KEPT

BASE = psutil.Process().memory_info().rss  # of a process that has imported everything and opened nothing
SCRATCH = 60e6  # bytes that libraries take while they compute: thread pools, oneDNN's and the allocator's own


def peak_of(job: Job) -> float:
    """Bytes: the process, the model's file in memory, and the largest of what its stages hold beside."""
    device, _ = compute_place(job.recipe)
    stages = [evaluation_bytes(job)] if device.type == "cpu" else [0.0]
    if job.how:
        stages += [max(map(walk_bytes, [*job.earlier, job])) if device.type == "cpu" else 0.0, speed_bytes(job) if device.type == "cpu" else 0.0]
    return BASE + SCRATCH + 1.2 * job.folder.size_bytes + max(stages)


def largest_layer(job: Job) -> float:
    """Bytes of the largest matrix that is unpacked to float32."""
    return 4.0 * max((layer.parameters for layer in job.at.layers if layer.kind != "embedding"), default=0)


def evaluation_bytes(job: Job) -> float:
    """Logits of one batch with those whose loss is computed, and what a block holds between."""
    much = job.evaluation
    places = much.places / much.batches
    if isinstance(job.recipe.task, LanguageModeling):
        vocabulary = job.at.model.config.get_text_config().vocab_size
        logits = min(LOGITS_BYTES, 4.0 * places * vocabulary) + 3 * 4.0 * min(places, AT_ONCE) * vocabulary
    else:
        logits = 0.0
    dense = dense_bytes(job.at.model)
    return logits + places * activation_bytes(job) + (dense if dense <= HELD_DENSE else 2 * largest_layer(job))


def activation_bytes(job: Job) -> float:
    """For one place, in float32: some six vectors of a block's widest layer; of pictures, all channels at each of their points."""
    if isinstance(job.recipe.task, ImageClassification):
        size = getattr(job.at.model.config, "image_size", None) or 32
        return 4.0 * 3 * max(layer.shape[0] for layer in job.at.layers) * (size if isinstance(size, int) else max(size)) ** 2 / 4
    return 4.0 * 6 * max(max(layer.matrix_shape) for layer in job.at.layers if layer.kind != "embedding" and layer.block)


def walk_bytes(job: Job) -> float:
    """A block in float32 and as it is stored, the calibration data between two blocks, and what each layer's method needs."""
    much, how = job.calibration, job.how
    largest = max((sum(4.0 * layer.parameters for layer in block if layer.name in job.settings) for block in blocks_of(job.at.layers)), default=0.0)
    held = 2 * largest_layer(job) + 0.5 * largest
    if how.needs in ("range", "gram"):
        hidden = min((layer.matrix_shape[1] for layer in job.targets), default=0)
        widest = max((layer.matrix_shape[1] for layer in job.targets), default=0)
        between = 2 * hidden + widest if how.in_step else 3 * hidden
        held += 4.0 * much.places * between + much.places / max(1.0, much.batches) * activation_bytes(job)
    if how.needs == "gradients":  # weights, their slopes, and two sums of them; what one example leaves behind in every block
        blocks = len({layer.block for layer in job.at.layers})
        held += 16.0 * sum(layer.parameters for layer in job.targets) + 2 * blocks * much.length * activation_bytes(job)
    if how.needs == "gram":
        held += 5 * 4.0 * max(layer.matrix_shape[1] for layer in job.targets) ** 2
    if (course := training_of(how)).steps:
        each = much.length if isinstance(job.recipe.task, LanguageModeling) else job.evaluation.length
        blocks = len({layer.block for layer in job.at.layers})
        held += 4.0 * course.copies * sum(layer.parameters for layer in job.targets) + course.batch * each * activation_bytes(job) * max(2, blocks)
    trial = trials_of(how, len(job.targets))
    if trial.answers and isinstance(job.recipe.task, LanguageModeling):
        vocabulary = job.at.model.config.get_text_config().vocab_size
        places = share(much, trial.examples)[0]
        held += 4.0 * (min(LOGITS_KEPT, places * vocabulary) + 3 * ROWS * much.length * vocabulary)
    if trial.evaluations:
        held += evaluation_bytes(job) + sum(layer.parameters for layer in job.targets)
    return held


def speed_bytes(job: Job) -> float:
    """Both models' weights, ready to be multiplied."""
    ready = 8.0 * sum(layer.parameters for layer in job.at.layers if not layer.tied_to)
    return evaluation_bytes(job) + (ready if job.recipe.speed and 8 * job.at.parameters <= MODEL_BYTES else 0.0)
