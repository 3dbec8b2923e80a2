"""Duration of a run: its workload times this machine's throughput."""

import math

import torch

from engine.calibration.stream import block_lists
from engine.config.technique import Technique
from engine.evaluation.calibration_batches import ROWS
from engine.evaluation.classification import IMAGES
from engine.forecast.data_volume import DataVolume, data_seconds, texts_are_cached
from engine.forecast.job import Job
from engine.forecast.throughput import processing_weights, products_per_second
from engine.measurement.generations import NEW_TOKENS, PROMPTS, SMALL
from engine.measurement.inputs import EXAMPLES
from engine.measurement.latency import LAYERS_SECONDS, MODEL_SECONDS
from engine.measurement.similarity import GROUP_IMAGES, GROUPS
from engine.models.layers import Layer
from engine.models.loaded_model import calibration_dtype, device_and_dtype, multiplies_bfloat16
from engine.models.packed_modules import dense_bytes
from engine.recipe.tasks import ImageClassification, LanguageModeling
from engine.recipe.tasks import Training as Learnt
from engine.step.run_context import MAX_UNPACKED_BYTES
from engine.step.workload import GRADIENT_PASSES, SearchWork, TrainingWork
from engine.techniques.implementations import layer_operations, search_work, training_work
from engine.training.datasets import MAX_HELD_OUT, MAX_HELD_OUT_WINDOWS

EXTRACTION = 10.0  # seconds for extracting the bundled corpus from the installed packages, once
TOKENIZING = 1e-5  # seconds per token


def run_seconds(job: Job, baseline: bool) -> float:
    steps = [*job.earlier, job] if job.config else []
    evaluations = (
        []
        if baseline
        else [
            evaluation_seconds(split_job, ()) + TOKENIZING * split_job.evaluation.positions
            for split_job in job.by_split
        ]
    )
    evaluations += [
        evaluation_seconds(split_job, split_job.targets)
        for step in steps
        for split_job in step.by_split
    ]
    reading_data = (len(evaluations) + bool(steps)) * data_seconds(job.recipe.task)
    return (
        loading_seconds(job)
        + sum(evaluations)
        + reading_data
        + (sum(map(compression_seconds, steps)) + finishing_seconds(job) if steps else 0.0)
    )


def loading_seconds(job: Job) -> float:
    """Seconds for opening the model before, for block-wise techniques, and after the step, and for
    reading its weights once to check them.
    """
    return (
        0.3
        + 1.5 * job.opening_seconds
        + job.folder.size_bytes / 2e9
        + (0.0 if texts_are_cached(job.recipe) else EXTRACTION)
    )


def evaluation_seconds(job: Job, compressed: list[Layer]) -> float:
    """One evaluation of the task, by the original or with these layers compressed."""
    volume = job.evaluation
    seconds = job.passes.seconds(volume.positions, volume.batches)
    unpackings = 1 if dense_bytes(job.loaded.model) <= MAX_UNPACKED_BYTES else volume.batches
    for layer in compressed:
        timing = job.layer_timing(layer)
        vectors = volume.positions * layer.reached * vectors_of(layer)
        seconds += unpackings * timing.unpack * layer.matrix_shape[0] + vectors * timing.receive
    return seconds


def vectors_of(layer: Layer) -> float:
    """Input vectors of a layer per position; a convolution's inputs are about 64 overlapping
    patches.
    """
    return 1.0 if layer.kind != "conv2d" else 64 / (layer.shape[2] * layer.shape[3])


def compression_seconds(job: Job) -> float:
    config, volume = job.config, job.calibration
    targets, rounds = job.targets, 0.0
    search = search_work(config, len(targets))
    for number, layer in enumerate(targets):
        timing, rows = job.layer_timing(layer), layer.matrix_shape[0]
        first = is_first_with_input(targets, number)
        rounds += (
            rows * (timing.compress * (1 + search.roundings) + timing.scale + timing.judge)
            + timing.once * first
            + timing.start
            + 0.004
        )
        rounds += layer_operations(config, layer.matrix_shape) / products_per_second()
        rounds += gram_seconds(job, layer) * first if config.needs == "gram" else 0.0
    rounds += (
        GRADIENT_PASSES * job.passes.seconds(volume.positions, job.recipe.calibration.samples)
        if config.needs == "gradients"
        else 0.0
    )
    error_seconds = (
        job.passes.seconds(*share_of_examples(volume, EXAMPLES)) if volume.positions else 0.0
    )
    return (
        rounds
        + error_seconds
        + calibration_seconds(job)
        + search_seconds(job, search)
        + training_seconds(job, training_work(technique_with_epoch_steps(job)))
    )


def training_seconds(job: Job, work: TrainingWork) -> float:
    """Seconds of training: forward and backward passes, evaluations on held-out examples, and
    preparing the examples once.
    """
    if not work.steps:
        return 0.0
    length, held_out = (
        (job.calibration.length, MAX_HELD_OUT_WINDOWS)
        if isinstance(job.recipe.task, LanguageModeling)
        else (job.evaluation.length, MAX_HELD_OUT)
    )
    passes = job.training_passes
    step = seconds_in_dtype(
        job, passes.seconds(work.batch * length, 1), work.batch * length, training_dtype(job)
    )
    teacher_seconds = work.teacher_passes * (
        work.steps
        if isinstance(job.recipe.task, LanguageModeling)
        else min(work.steps, max_training_examples(job) / work.batch)
    )
    rounding = (
        work.roundings
        * sum(job.layer_timing(layer).compress * layer.matrix_shape[0] for layer in job.targets)
        if work.roundings
        else 0.0
    )
    held_out_seconds = work.evaluations * passes.seconds(
        held_out * length, max(1.0, held_out / IMAGES)
    )
    return (
        rounding
        + (work.steps * work.passes + teacher_seconds) * step
        + held_out_seconds
        + data_seconds(job.recipe.task)
    )


def technique_with_epoch_steps(job: Job) -> Technique:
    """Return the job with the number of steps that its epochs have for the largest possible number
    of examples.
    """
    epochs = job.recipe.training.epochs if job.recipe.training else None
    if not (epochs and job.config.counts_epochs):
        return job.config
    return job.config.model_copy(
        update={"steps": max(1, math.ceil(epochs * job.recipe.training.samples / job.config.batch))}
    )


def max_training_examples(job: Job) -> float:
    """Maximum number of training examples."""
    data = job.recipe.training or Learnt()
    return data.samples * (2 if data.unlabelled else 1)


def training_dtype(job: Job) -> torch.dtype:
    """Dtype of products during training; a GPU is estimated with the CPU's float32."""
    uses_bfloat16 = getattr(job.config, "products", "auto") == "bfloat16" and multiplies_bfloat16(
        torch.device("cpu")
    )
    return torch.bfloat16 if uses_bfloat16 else torch.float32


def is_first_with_input(layers: list[Layer], number: int) -> bool:
    """Return True if a layer is the first one with its input: adjacent layers of equal width in a
    block usually share it.
    """
    return not number or (layers[number - 1].block, layers[number - 1].matrix_shape[1]) != (
        layers[number].block,
        layers[number].matrix_shape[1],
    )


def gram_seconds(job: Job, layer: Layer) -> float:
    """Seconds per entry of a Gram matrix: 10 of 16 tiles are computed, below full speed."""
    return (
        2
        * job.calibration.positions
        * layer.reached
        * layer.matrix_shape[1] ** 2
        / products_per_second(streaming_dtype(job))
    )


def streaming_dtype(job: Job) -> torch.dtype:
    """Dtype of calibration passes; a GPU is estimated with the CPU's float32."""
    device, _ = device_and_dtype(job.recipe)
    return calibration_dtype(job.recipe) if device.type == "cpu" else torch.float32


def streaming_seconds(job: Job) -> float:
    """Seconds of a calibration pass through the whole model. A shorter dtype only speeds up matrix
    products.
    """
    volume = job.calibration
    return seconds_in_dtype(
        job,
        job.passes.seconds(volume.positions, volume.batches),
        volume.positions,
        streaming_dtype(job),
    )


def seconds_in_dtype(job: Job, seconds: float, positions: float, dtype: torch.dtype) -> float:
    """Seconds of passes that take this long in float32, with products in another dtype."""
    products = 2.0 * processing_weights(job.loaded.layers) * positions
    return max(
        seconds / 4,
        seconds - products / products_per_second() + products / products_per_second(dtype),
    )


def calibration_seconds(job: Job) -> float:
    """Seconds of calibration: two passes through each block in a chain of blocks, one if layers are
    calibrated in step, otherwise one pass through the model per block.
    """
    if job.config.needs not in ("range", "gram"):
        return 0.0
    chain = max(map(len, block_lists(job.loaded.model)), default=0) > 1 and not isinstance(
        job.recipe.task, ImageClassification
    )
    blocks = len({layer.block for layer in job.targets})
    return ((1 if job.config.sequential else 2) if chain else blocks) * 1.3 * streaming_seconds(job)


def search_seconds(job: Job, search: SearchWork) -> float:
    batches = share_of_examples(job.calibration, search.examples)
    statistics_seconds = (
        job.passes.seconds(job.calibration.positions, job.calibration.batches)
        if search.evaluations
        else 0.0
    )
    return (
        statistics_seconds
        + search.evaluations
        * (evaluation_seconds(job, job.targets) + data_seconds(job.recipe.task))
        + search.answers * job.passes.seconds(*batches)
    )


def share_of_examples(volume: DataVolume, examples: int) -> tuple[float, float]:
    """Positions and batches of the first examples."""
    batches = max(1.0, examples / ROWS)
    return volume.positions * min(1.0, batches / max(1.0, volume.batches)), batches


def finishing_seconds(job: Job) -> float:
    """Seconds for generating sample texts and measuring latency."""
    example_seconds, seconds = job.passes.per_pass + job.passes.per_position, 0.0
    if isinstance(job.recipe.task, LanguageModeling):
        small = job.folder.size_bytes < SMALL
        seconds += 2.5 * example_seconds * (len(PROMPTS) * NEW_TOKENS if small else NEW_TOKENS // 4)
    if job.recipe.speed:
        # of texts the largest batch is timed; few kernels are timed for images
        volume = job.evaluation
        batch = (
            volume.length
            if isinstance(job.recipe.task, ImageClassification)
            else 2 * volume.positions / volume.batches
        )
        seconds += min(MODEL_SECONDS + LAYERS_SECONDS, 60 * job.passes.seconds(batch, 1))
    return seconds + comparison_seconds(job)


def comparison_seconds(job: Job) -> float:
    """Seconds for running student and teacher on the same calibration data; the student is assumed
    to be as large as the teacher.
    """
    if not any(step.trains_student for step in job.recipe.steps) or not job.recipe.calibration:
        return 0.0
    examples = (
        GROUP_IMAGES * GROUPS
        if isinstance(job.recipe.task, ImageClassification)
        else min(job.recipe.calibration.samples, GROUPS * ROWS)
    )
    return 2 * job.passes.seconds(examples * job.calibration.length, examples / ROWS)
