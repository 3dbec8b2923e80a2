"""What a run will cost, in seconds and in memory: how much of what it does, times how quick that is here.

What the model, the technique and the data take is measured in short probes (``paces``); what past runs took corrects the sum.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache, singledispatch
from pathlib import Path

import psutil
import torch
from pydantic import TypeAdapter

from engine.catalog.aware import QAT, Adapters, Aware, BitNet
from engine.catalog.distillation import SMALLER, Distill, Learning
from engine.catalog.lowrank import Kernels, Whitened
from engine.catalog.mixed import AWQSalience, MixedPrecision
from engine.catalog.precision import MixedPrecisionTraining
from engine.catalog.schedules import Gradual, LotteryTicket
from engine.catalog.tasks import ImageClassification, LanguageModeling, Task, TextClassification
from engine.catalog.technique import Technique
from engine.errors import PlainError
from engine.recipe import Recipe
from engine.work.bench import HELD_DENSE
from engine.work.calibration.stream import lists_of_blocks
from engine.work.layers import Layer, blocks_of
from engine.work.measure.inputs import EXAMPLES
from engine.work.measure.latency import LAYERS_SECONDS, MODEL_BYTES, MODEL_SECONDS
from engine.work.methods.quantization.salience import VARIANTS
from engine.work.models import Folder, resolve, tokenizer_of
from engine.work.opened import Opened, calibration_dtype, compute_place
from engine.work.paces import LayerPace, Passes, layer_pace, passes_of, product_pace, quickest, weights_of
from engine.work.samples import NEW_TOKENS, PROMPTS, SMALL
from engine.work.stored.modules import dense_bytes
from engine.work.tasks.baseline import baseline_known
from engine.work.tasks.cache import kept_in
from engine.work.tasks.calibration import ROWS
from engine.work.tasks.classification import IMAGES, TEXTS
from engine.work.tasks.corpora import corpus_key
from engine.work.tasks.data import examples_of, text_of
from engine.work.tasks.perplexity import AT_ONCE, CPU_TOKENS, LOGITS_BYTES
from engine.work.tasks.sources import is_local, local_path
from engine.work.threads import threads_to_train
from engine.work.training.lessons import HELD_OUT, WINDOWS_HELD_OUT
from engine.work.training.study import LOOKS
from engine.work.trial import LOGITS_KEPT

EXTRACTION = 10.0  # seconds in which the bundled corpus is read from the installed packages, once
TOKENIZING = 1e-5  # seconds of a token
BASE = psutil.Process().memory_info().rss  # of a process that has imported everything and opened nothing
SCRATCH = 60e6  # bytes that libraries take while they compute: thread pools, oneDNN's and the allocator's own
GPU_PACE = 2e13  # products a second of a GPU in a model, which the CPU's probes say nothing about
SLOPES = 3.0  # passes that one with slopes takes
SVD_PRODUCTS = 40.0  # times rows x columns x the smaller of both
CORRECTION = 4.0  # at most, by what a past run took


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_rss_bytes: float


@dataclass(frozen=True)
class Reading:
    """How much of the data a model reads at one time or another."""

    places: float  # tokens or pictures
    batches: float
    length: int  # of one window or text, in tokens; 1 for pictures


@dataclass(frozen=True)
class Trials:
    """What a technique tries out before it decides."""

    evaluations: int = 0  # of the whole task
    answers: int = 0  # passes over calibration examples
    examples: int = 0  # of each such pass
    roundings: int = 0  # of every layer


@singledispatch
def trials_of(how: Technique, layers: int) -> Trials:
    return Trials()


@trials_of.register
def _(how: MixedPrecision, layers: int) -> Trials:
    if how.by == "name":
        return Trials()
    candidates = len(how.candidates())
    return Trials(0, layers * (candidates + 1) + 2, how.examples, 2 * candidates)


@trials_of.register
def _(how: AWQSalience, layers: int) -> Trials:
    return Trials(evaluations=len(VARIANTS), roundings=2 * len(VARIANTS))  # once more for each variant's output error


@singledispatch
def products_of(how: Technique, shape: tuple[int, int]) -> float:
    """What a layer takes besides what grows with its rows, in operations."""
    return 0.0


@products_of.register
def _(how: Whitened, shape: tuple[int, int]) -> float:
    """An SVD with its vectors, and two without: to find ranks and to show the spectrum. LAPACK is slower than a product."""
    return SVD_PRODUCTS * shape[0] * shape[1] * min(shape)


@dataclass(frozen=True)
class Training:
    """What a technique learns before its layers are stored."""

    steps: int = 0
    batch: int = 0  # examples of each
    passes: float = SLOPES  # of a step, in forward passes: there and back, and a teacher's
    looks: int = 0  # at the examples held out
    copies: float = 4.0  # of every weight, in float32: itself, its slope, and what AdamW keeps of it
    roundings: int = 0  # of every layer, in forward passes


@singledispatch
def training_of(how: Technique) -> Training:
    return Training()


@training_of.register
def _(how: Gradual) -> Training:
    looks = how.steps // how.prune_every + (how.steps // how.prune_every if how.regrow else how.cuts) + 2
    kept = how.regularizer == "l0", bool(how.floor)  # gates with all that belongs to them; a state to go back to
    return Training(how.steps, how.batch, SLOPES + (how.distill_weight > 0), looks, 5.0 + 4 * kept[0] + kept[1])


@training_of.register
def _(how: LotteryTicket) -> Training:
    """Beside the network in training, the first weights, its twin's, and what it is to go back to."""
    return Training(how.trainings * how.steps + how.seeds * how.rewind_step, how.batch, SLOPES, how.trainings, 9.0)


@training_of.register
def _(how: Kernels) -> Training:
    return Training(how.recovery, how.batch, SLOPES, LOOKS + 1, 5.0) if how.trains else Training()


@training_of.register
def _(how: Aware) -> Training:
    """Beside what every training holds, the best state so far."""
    looks = how.steps // how.look_every + 2
    return Training(how.steps, how.batch, SLOPES + (how.distill_weight > 0), looks, 5.0)


@training_of.register(QAT)
@training_of.register(BitNet)
def _(how: QAT | BitNet) -> Training:
    """Each forward pass rounds every weight anew; the backward one remembers codes and steps."""
    usual = training_of.dispatch(Aware)(how)
    return replace(usual, copies=usual.copies + 3, roundings=how.steps + usual.looks)


@training_of.register
def _(how: Adapters) -> Training:
    """Weights rest."""
    return replace(training_of.dispatch(Aware)(how), copies=1.5)


@training_of.register
def _(how: MixedPrecisionTraining) -> Training:
    """Two models at most: the one in training, and the one that is kept. At each look, slopes twice more."""
    looks = how.trainings * (how.steps // how.look_every + 1)
    return Training(how.trainings * (how.steps + 2 * how.steps // how.look_every), how.batch, SLOPES, looks, 6.0)


@training_of.register
def _(how: Learning) -> Training:
    """Beside weights, slopes and what AdamW keeps: the best state so far. A look is one of LOOKS, and one before."""
    return Training(how.steps, how.batch, SLOPES, LOOKS + 1, 5.0)


@training_of.register
def _(how: Distill) -> Training:
    """The student is a share of its teacher, who is asked at each step; of a width, by its square."""
    share = how.blocks * how.width**2 if how.student == SMALLER else 1.0
    passes = {"black-box": SLOPES * share, "online": SLOPES * (share + 1) + 1 + share}.get(how.setting, SLOPES * share + 1 + len(how.further))
    times = how.generations if how.setting == "self" else 1
    return Training(times * how.steps, how.batch, passes, times * (LOOKS + 1), 5.0 * share + 1 + 4 * (how.setting == "online"))


@dataclass(frozen=True)
class Job:
    """A recipe and what is known of its model before it runs."""

    recipe: Recipe
    folder: Folder
    key: tuple
    at: Opened
    settings: dict[str, Technique]  # of the layers to be compressed
    opening_seconds: float  # of the model, once, with what the libraries load for it
    earlier: tuple["Job", ...] = ()  # steps that come before

    @property
    def how(self) -> Technique | None:
        return self.recipe.steps[-1] if self.recipe.steps else None

    @property
    def targets(self) -> list[Layer]:
        return [layer for layer in self.at.layers if layer.name in self.settings]

    @property
    def passes(self) -> Passes:
        measured = passes_of(self.key, self.at, self.folder, self.evaluation.length)
        device, _ = compute_place(self.recipe)
        return measured if device.type == "cpu" else Passes(measured.each, self.at.parameters / GPU_PACE)

    @property
    def training_passes(self) -> Passes:
        """With as many threads as training takes."""
        with threads_to_train(self.at.parameters):
            return replace(self, key=(*self.key, "training")).passes

    def pace(self, layer: Layer) -> LayerPace:
        return layer_pace(self.settings[layer.name], layer.matrix_shape[1])

    @property
    def evaluation(self) -> Reading:
        return reading(self.recipe.task, self.folder)

    @property
    def calibration(self) -> Reading:
        asked, task = self.recipe.calibration, self.recipe.task
        if asked is None:
            return Reading(0, 0, 1)
        each = self.evaluation.length if isinstance(task, LanguageModeling) else self.evaluation.places / max(1, count_of(task))
        each = asked.context if isinstance(task, LanguageModeling) else each
        return Reading(asked.samples * each, asked.samples / ROWS, max(1, int(each)))


def cost_of(job: Job, past: dict | None = None) -> Cost:
    """``past``: recipe, seconds and peak_rss_bytes of a run like it on this machine; numbers are moved by as much as it was off."""
    known = baseline_known(job.recipe, job.folder)
    cost = Cost(seconds_of(job, known), peak_of(job))
    if past is None:
        return cost
    then = replace(job, recipe=Recipe.of(past["recipe"]), settings=job.settings | settings_then(job, past))
    ways = [seconds_of(then, True), seconds_of(then, False)]  # whether the original's quality was known then, nobody has noted
    off = min((past["seconds"] / way for way in ways), key=lambda ratio: max(ratio, 1 / ratio))
    return Cost(cost.seconds * within(off), cost.peak_rss_bytes * within(past["peak_rss_bytes"] / peak_of(then)))


def settings_then(job: Job, past: dict) -> dict[str, Technique]:
    """The past run's own technique on the same layers."""
    how = Recipe.of(past["recipe"]).steps[-1]
    return dict.fromkeys(job.settings, how) if trials_of(how, 1) == Trials() else {}


def within(ratio: float) -> float:
    return min(CORRECTION, max(1 / CORRECTION, ratio))


# --- seconds ---------------------------------------------------------------------------------------------------------


def seconds_of(job: Job, baseline: bool) -> float:
    evaluations = [] if baseline else [evaluating(job, ()) + TOKENIZING * job.evaluation.places]
    if job.how:
        evaluations += [evaluating(job, job.targets)]
    reading_data = (len(evaluations) + (job.how is not None)) * data_seconds(job.recipe.task)
    return opening(job) + sum(evaluations) + reading_data + (sum(map(compressing, [*job.earlier, job])) + finishing(job) if job.how else 0.0)


def opening(job: Job) -> float:
    """The model is opened before, for techniques that walk, and after; its weights are read through once to be checked."""
    return 0.3 + 1.5 * job.opening_seconds + job.folder.size_bytes / 2e9 + (0.0 if corpus_kept(job.recipe.task) else EXTRACTION)


def evaluating(job: Job, compressed: list[Layer]) -> float:
    """The task once, by the original or with these layers compressed."""
    much = job.evaluation
    seconds = job.passes.seconds(much.places, much.batches)
    unpackings = 1 if dense_bytes(job.at.model) <= HELD_DENSE else much.batches
    for layer in compressed:
        pace = job.pace(layer)
        vectors = much.places * vectors_of(layer)
        seconds += unpackings * pace.unpack * layer.matrix_shape[0] + vectors * pace.receive
    return seconds


def vectors_of(layer: Layer) -> float:
    """Input vectors of a layer for each place; a convolution's inputs are some 64 points, whose patches overlap."""
    return 1.0 if layer.kind != "conv2d" else 64 / (layer.shape[2] * layer.shape[3])


def compressing(job: Job) -> float:
    how, much = job.how, job.calibration
    trial, rounds = trials_of(how, len(job.targets)), 0.0
    for number, layer in enumerate(job.targets):
        pace, rows = job.pace(layer), layer.matrix_shape[0]
        first = shares_no_input(job.targets, number)
        rounds += rows * (pace.compress * (1 + trial.roundings) + pace.scale + pace.judge) + pace.once * first + pace.start + 0.004
        rounds += products_of(how, layer.matrix_shape) / product_pace()
        rounds += gram(job, layer) * first if how.needs == "gram" else 0.0
    rounds += SLOPES * job.passes.seconds(much.places, job.recipe.calibration.samples) if how.needs == "gradients" else 0.0
    judging = job.passes.seconds(*share(much, EXAMPLES)) if much.places else 0.0
    return rounds + judging + walking(job) + trying(job, trial) + training(job, training_of(how))


def training(job: Job, course: Training) -> float:
    """Steps there and back, and looks at what is held out; examples are made ready once."""
    if not course.steps:
        return 0.0
    each, held = (job.calibration.length, WINDOWS_HELD_OUT) if isinstance(job.recipe.task, LanguageModeling) else (job.evaluation.length, HELD_OUT)
    passes, epochs = job.training_passes, job.recipe.training.epochs if job.recipe.training else None
    if epochs:
        course = replace(course, steps=math.ceil(epochs * job.recipe.training.samples / course.batch))  # as many examples as there may be
    step = course.passes * passes.seconds(course.batch * each, 1)
    rounding = course.roundings * sum(job.pace(layer).compress * layer.matrix_shape[0] for layer in job.targets) if course.roundings else 0.0
    return rounding + course.steps * step + course.looks * passes.seconds(held * each, max(1.0, held / IMAGES)) + data_seconds(job.recipe.task)


def shares_no_input(layers: list[Layer], number: int) -> bool:
    """Whether a layer is the first that meets its input: neighbours of one width in one block mostly share theirs."""
    return not number or (layers[number - 1].block, layers[number - 1].matrix_shape[1]) != (layers[number].block, layers[number].matrix_shape[1])


def gram(job: Job, layer: Layer) -> float:
    """Ten sixteenths of a symmetric product are computed, and not at full speed."""
    return 2 * job.calibration.places * layer.matrix_shape[1] ** 2 / product_pace(streamed_in(job))


def streamed_in(job: Job) -> torch.dtype:
    """The precision in which calibration data goes from block to block; a GPU is reckoned with the CPU's float32."""
    device, _ = compute_place(job.recipe)
    return calibration_dtype(job.recipe) if device.type == "cpu" else torch.float32


def streaming(job: Job) -> float:
    """Seconds of the calibration data's way through the whole model. A shorter precision makes its matrix products quicker, and nothing else."""
    much = job.calibration
    seconds, products = job.passes.seconds(much.places, much.batches), 2.0 * weights_of(job.at.layers) * much.places
    return max(seconds / 4, seconds - products / product_pace() + products / product_pace(streamed_in(job)))


def walking(job: Job) -> float:
    """Calibration data goes through each block twice where blocks follow one another, in step once; else through the model for each block."""
    if job.how.needs not in ("range", "gram"):
        return 0.0
    chain = max(map(len, lists_of_blocks(job.at.model)), default=0) > 1 and not isinstance(job.recipe.task, ImageClassification)
    blocks = len({layer.block for layer in job.targets})
    return ((1 if job.how.in_step else 2) if chain else blocks) * 1.3 * streaming(job)


def trying(job: Job, trial: Trials) -> float:
    batches = share(job.calibration, trial.examples)
    seen = job.passes.seconds(job.calibration.places, job.calibration.batches) if trial.evaluations else 0.0
    return seen + trial.evaluations * (evaluating(job, job.targets) + data_seconds(job.recipe.task)) + trial.answers * job.passes.seconds(*batches)


def share(much: Reading, examples: int) -> tuple[float, float]:
    """Places and batches of some of the examples."""
    batches = max(1.0, examples / ROWS)
    return much.places * min(1.0, batches / max(1.0, much.batches)), batches


def finishing(job: Job) -> float:
    """Continued beginnings, token after token, and the speed."""
    one, seconds = job.passes.each + job.passes.place, 0.0
    if isinstance(job.recipe.task, LanguageModeling):
        small = job.folder.size_bytes < SMALL
        seconds += 2.5 * one * (len(PROMPTS) * NEW_TOKENS if small else NEW_TOKENS // 4)
    if job.recipe.speed:
        much = job.evaluation  # of texts the largest batch is timed; of pictures, which have few kernels, little
        batch = much.length if isinstance(job.recipe.task, ImageClassification) else 2 * much.places / much.batches
        seconds += min(MODEL_SECONDS + LAYERS_SECONDS, 60 * job.passes.seconds(batch, 1))
    return seconds


# --- data ------------------------------------------------------------------------------------------------------------


def reading(task: Task, folder: Folder) -> Reading:
    if isinstance(task, LanguageModeling):
        tokens = min(task.tokens, text_bytes(task) / 3)
        at_once = max(1, CPU_TOKENS * torch.get_num_threads() // task.context) * task.context
        return Reading(tokens, max(1.0, tokens / at_once), task.context)
    if isinstance(task, TextClassification):
        texts, each = count_of(task), text_length(task.model_dump_json(), str(folder.path))
        return Reading(texts * each, max(texts / TEXTS, min(texts, each)), int(each))  # texts of one length share a batch
    return Reading(count_of(task), max(1.0, count_of(task) / IMAGES), 1)


def text_bytes(task: LanguageModeling) -> float:
    if task.text.startswith("bundled:") or not is_local(task.text):
        return float("inf")
    try:
        return max(1, local_path(task.text).stat().st_size)
    except (OSError, PlainError):
        return float("inf")


def count_of(task: Task) -> float:
    """Examples that are read; as many as asked for where that takes a download or an extraction to know."""
    return len(inputs_of(task.model_dump_json())) or task.samples


@lru_cache(maxsize=16)
def text_length(task: str, model: str) -> float:
    """Mean tokens of a text, by a few of them."""
    asked, texts = TextClassification.model_validate_json(task), inputs_of(task)[:64]
    if not texts:
        return 0.7 * asked.length
    rows = tokenizer_of(resolve(model))(texts, truncation=True, max_length=asked.length)["input_ids"]
    return sum(map(len, rows)) / len(rows)


@lru_cache(maxsize=16)
def inputs_of(task: str) -> list:
    """The task's own examples; none where they would have to be fetched or extracted first."""
    asked = TypeAdapter(Task).validate_json(task)
    if not (is_local(asked.data) or (asked.data.startswith("bundled:") and corpus_kept(asked))):
        return []
    try:
        return examples_of(asked).inputs
    except PlainError:
        return []


def corpus_kept(task: Task) -> bool:
    """Whether the bundled texts behind a task have been extracted already, or need not be."""
    source = getattr(task, "text", None) or getattr(task, "data", "")
    names = {"bundled:docs": "docs", "bundled:docs-libraries": "libraries"}
    return source not in names or Path(kept_in() / f"{names[source]}-{corpus_key()}.parquet").exists()


def data_seconds(task: Task) -> float:
    """What reading the data takes each time, once it is there."""
    return read_once(task.model_dump_json()) if corpus_kept(task) else 0.0


@lru_cache(maxsize=16)
def read_once(task: str) -> float:
    asked = TypeAdapter(Task).validate_json(task)
    if not isinstance(asked, LanguageModeling):
        return quickest(lambda: inputs_of.__wrapped__(task), 2, least=2)
    if not (is_local(asked.text) or asked.text.startswith("bundled:")):
        return 1.0
    try:
        return quickest(lambda: text_of(asked.text, asked.text_column, asked.split), 2, least=2)
    except PlainError:
        return 0.0


# --- memory ----------------------------------------------------------------------------------------------------------


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
