"""What a technique asks for besides its layers: what it tries out before it decides, and what it learns."""

from dataclasses import dataclass, replace
from functools import singledispatch

from engine.catalog.aware import QAT, Adapters, Aware, BitNet
from engine.catalog.distillation import SMALLER, Distill, Learning
from engine.catalog.lowrank import Kernels, Whitened
from engine.catalog.mixed import AWQSalience, MixedPrecision
from engine.catalog.precision import MixedPrecisionTraining
from engine.catalog.schedules import Gradual, LotteryTicket
from engine.catalog.technique import Technique
from engine.work.methods.quantization.salience import VARIANTS
from engine.work.training.study import LOOKS

SLOPES = 3.0  # passes that one with slopes takes
SVD_PRODUCTS = 40.0  # times rows x columns x the smaller of both


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
    asked: float = 0.0  # forward passes of teachers who are asked about each example once, however often it comes
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
    return Training(how.steps, how.batch, SLOPES + (how.distill_weight > 0), looks=looks, copies=5.0 + 4 * kept[0] + kept[1])


@training_of.register
def _(how: LotteryTicket) -> Training:
    """Beside the network in training, the first weights, its twin's, and what it is to go back to."""
    return Training(how.trainings * how.steps + how.seeds * how.rewind_step, how.batch, SLOPES, looks=how.trainings, copies=9.0)


@training_of.register
def _(how: Kernels) -> Training:
    return Training(how.recovery, how.batch, SLOPES, looks=LOOKS + 1, copies=5.0) if how.trains else Training()


@training_of.register
def _(how: Aware) -> Training:
    """Beside what every training holds, the best state so far."""
    looks = how.steps // how.look_every + 2
    return Training(how.steps, how.batch, SLOPES + (how.distill_weight > 0), looks=looks, copies=5.0)


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
    return Training(how.trainings * (how.steps + 2 * how.steps // how.look_every), how.batch, SLOPES, looks=looks, copies=6.0)


@training_of.register
def _(how: Learning) -> Training:
    """Beside weights, slopes and what AdamW keeps: the best state so far. A look is one of LOOKS, and one before."""
    return Training(how.steps, how.batch, SLOPES, looks=LOOKS + 1, copies=5.0)


@training_of.register
def _(how: Distill) -> Training:
    """The student is a share of its teacher, of a width by its square. Whose states are compared, that teacher is asked at each step."""
    share = how.blocks * how.width**2 if how.student == SMALLER else 1.0
    if how.looks_twice:
        return Training(how.steps, how.batch, 2 * SLOPES * share, looks=LOOKS + 1, copies=5.0 * share + 1)
    times, teachers = how.generations if how.setting == "self" else 1, 1 + len(how.further)
    anew = how.features != "none" or how.attention_weight > 0
    passes = SLOPES * (share + 1) + 1 + share if how.setting == "online" else SLOPES * share + teachers * anew
    asked = 0.0 if anew or how.setting == "online" else float(teachers)
    copies = 5.0 * share + 1 + 4 * (how.setting == "online")
    return Training(times * how.steps, how.batch, passes, asked, looks=times * (LOOKS + 1), copies=copies)
