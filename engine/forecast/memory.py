"""Peak memory of a run: the process, the model's file, and the largest of its stages."""

import psutil

from engine.evaluation.calibration_batches import ROWS
from engine.evaluation.perplexity import LOGITS_BYTES, TOKENS_PER_LOSS
from engine.forecast.duration import is_first_with_input, share_of_examples
from engine.forecast.job import Job
from engine.measurement.latency import MODEL_BYTES
from engine.models.layers import Layer, blocks_of
from engine.models.loaded_model import device_and_dtype
from engine.models.packed_modules import dense_bytes
from engine.recipe.tasks import ImageClassification, LanguageModeling
from engine.step.layer_swap import MAX_CACHED_LOGITS
from engine.step.run_context import MAX_UNPACKED_BYTES
from engine.techniques.implementations import search_work, training_work

# bytes of a process that has imported everything and opened nothing
BASE = psutil.Process().memory_info().rss
# bytes of the tables of a calibrated layer, and of memory that the allocator keeps; large only with
# many experts
LAYER_STATS_BYTES = 6e5
# bytes that libraries use during computation: thread pools, oneDNN and the allocator
SCRATCH = 60e6


def peak_bytes(job: Job) -> float:
    """Peak memory in bytes: the process, the mapped model file, and the largest additional
    memory of any stage.
    """
    device, _ = device_and_dtype(job.recipe)
    stages = [evaluation_bytes(job)] if device.type == "cpu" else [0.0]
    if job.config:
        stages += [
            max(map(compression_bytes, [*job.earlier, job])) if device.type == "cpu" else 0.0,
            speed_bytes(job) if device.type == "cpu" else 0.0,
        ]
    stats_bytes = LAYER_STATS_BYTES * max(
        (
            len(step_job.targets)
            for step_job in [*job.earlier, job]
            if step_job.config and step_job.config.needs != "nothing"
        ),
        default=0,
    )
    return BASE + SCRATCH + 1.2 * job.folder.size_bytes + max(stages) + stats_bytes


def largest_layer(job: Job) -> float:
    """Bytes of the largest matrix unpacked to float32."""
    return 4.0 * max(
        (layer.parameters for layer in job.loaded.layers if layer.kind != "embedding"), default=0
    )


def evaluation_bytes(job: Job) -> float:
    """Bytes of one batch's logits, the part whose loss is computed, and a block's activations."""
    volume = job.evaluation
    positions = volume.positions / volume.batches
    if isinstance(job.recipe.task, LanguageModeling):
        vocabulary = job.loaded.model.config.get_text_config().vocab_size
        logits = (
            min(LOGITS_BYTES, 4.0 * positions * vocabulary)
            + 3 * 4.0 * min(positions, TOKENS_PER_LOSS) * vocabulary
        )
    else:
        logits = 0.0
    dense = dense_bytes(job.loaded.model)
    return (
        logits
        + positions * activation_bytes(job)
        + (dense if dense <= MAX_UNPACKED_BYTES else 2 * largest_layer(job))
    )


def activation_bytes(job: Job) -> float:
    """Activation bytes per position in float32: about six vectors of a block's widest layer; for
    images, all channels at each pixel.
    """
    if isinstance(job.recipe.task, ImageClassification):
        size = getattr(job.loaded.model.config, "image_size", None) or 32
        return (
            4.0
            * 3
            * max(layer.shape[0] for layer in job.loaded.layers)
            * (size if isinstance(size, int) else max(size)) ** 2
            / 4
        )
    return (
        4.0
        * 6
        * max(
            (
                max(layer.matrix_shape)
                for layer in job.loaded.layers
                if layer.kind != "embedding" and layer.block
            ),
            default=0,
        )
    )


def compression_bytes(job: Job) -> float:
    """Bytes of a block in float32 and as stored, the calibration data between two blocks, and what
    the method needs per layer.
    """
    volume, config = job.calibration, job.config
    largest = max(
        (
            sum(4.0 * layer.parameters for layer in block if layer.name in job.settings)
            for block in blocks_of(job.loaded.layers)
        ),
        default=0.0,
    )
    total = 2 * largest_layer(job) + 0.5 * largest
    if config.needs in ("range", "gram"):
        hidden = min((layer.matrix_shape[1] for layer in job.targets), default=0)
        widest = max((layer.matrix_shape[1] for layer in job.targets), default=0)
        between = 2 * hidden + widest if config.sequential else 3 * hidden
        total += 4.0 * volume.positions * between + volume.positions / max(
            1.0, volume.batches
        ) * activation_bytes(job)
    # weights, gradients and two optimizer states; activations of one example in every block
    if config.needs == "gradients":
        blocks = len({layer.block for layer in job.loaded.layers})
        total += 16.0 * sum(
            layer.parameters for layer in job.targets
        ) + 2 * blocks * volume.length * activation_bytes(job)
    if config.needs == "gram":
        total += 5 * 4.0 * max(layer.matrix_shape[1] for layer in job.targets) ** 2
        total += (
            0.0
            if config.sequential
            else 4.0 * max(map(gram_entries_of_experts, blocks_of(job.targets)))
        )
    if (training := training_work(config)).steps:
        length = (
            volume.length
            if isinstance(job.recipe.task, LanguageModeling)
            else job.evaluation.length
        )
        blocks = len({layer.block for layer in job.loaded.layers})
        total += 4.0 * training.copies * sum(
            layer.parameters for layer in job.targets
        ) + training.batch * length * activation_bytes(job) * max(2, blocks)
    search = search_work(config, len(job.targets))
    if search.answers and isinstance(job.recipe.task, LanguageModeling):
        vocabulary = job.loaded.model.config.get_text_config().vocab_size
        positions = share_of_examples(volume, search.examples)[0]
        total += 4.0 * (
            min(MAX_CACHED_LOGITS, positions * vocabulary) + 3 * ROWS * volume.length * vocabulary
        )
    if search.evaluations:
        total += evaluation_bytes(job) + sum(layer.parameters for layer in job.targets)
    return total


def gram_entries_of_experts(block: list[Layer]) -> float:
    """Entries of the Gram matrices of all experts of a block, which are in memory together unless
    its layers are compressed one by one.
    """
    firsts = (
        layer
        for number, layer in enumerate(block)
        if layer.reached < 1 and is_first_with_input(block, number)
    )
    return float(sum(layer.matrix_shape[1] ** 2 for layer in firsts))


def speed_bytes(job: Job) -> float:
    """Bytes of both models' dense weights during the speed measurement."""
    ready = 8.0 * sum(layer.parameters for layer in job.loaded.layers if not layer.tied_to)
    return evaluation_bytes(job) + (
        ready if job.recipe.speed and 8 * job.loaded.parameters <= MODEL_BYTES else 0.0
    )
