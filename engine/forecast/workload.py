"""Workload of a technique besides its layers: searches before it decides, and training."""

from dataclasses import dataclass, replace
from functools import singledispatch

from engine.config.technique import Technique
from engine.techniques.distillation.distill.config import SMALLER, Distill, Learning
from engine.techniques.low_rank.options import Whitened
from engine.techniques.low_rank.tensor_decomposition.config import Kernels
from engine.techniques.pruning.gradual.config import Gradual
from engine.techniques.pruning.lottery_ticket.config import LotteryTicket
from engine.techniques.quantization.mixed_precision.config import MixedPrecision
from engine.techniques.quantization.salience.config import AWQSalience
from engine.techniques.quantization.salience.method import VARIANTS
from engine.techniques.training.adapters.config import Adapters
from engine.techniques.training.mixed_precision_training.config import MixedPrecisionTraining
from engine.techniques.training.options import Aware
from engine.techniques.training.qat.config import QAT, BitNet
from engine.training.trainer import LOOKS

SLOPES = 3.0  # passes that one with gradients takes
SVD_PRODUCTS = 40.0  # times rows x columns x the smaller of both


@dataclass(frozen=True)
class Trials:
    """Search that a technique does before it decides."""

    evaluations: int = 0  # of the whole task
    answers: int = 0  # passes over calibration examples
    examples: int = 0  # of each such pass
    roundings: int = 0  # of every layer


@singledispatch
def trials_of(how: Technique, layers: int) -> Trials:
    return Trials()


@trials_of.register
def trials_of_mixed_precision(how: MixedPrecision, layers: int) -> Trials:
    if how.by == "name":
        return Trials()
    candidates = len(how.candidates())
    return Trials(0, layers * (candidates + 1) + 2, how.examples, 2 * candidates)


@trials_of.register
def trials_of_awq_salience(how: AWQSalience, layers: int) -> Trials:
    # once more for each variant's output error
    return Trials(evaluations=len(VARIANTS), roundings=2 * len(VARIANTS))


@singledispatch
def products_of(how: Technique, shape: tuple[int, int]) -> float:
    """Operations for a layer besides those proportional to its rows."""
    return 0.0


@products_of.register
def products_of_whitened(how: Whitened, shape: tuple[int, int]) -> float:
    """An SVD with its vectors, and two without: to find ranks and to show the spectrum. LAPACK is
    slower than a product.
    """
    return SVD_PRODUCTS * shape[0] * shape[1] * min(shape)


@dataclass(frozen=True)
class Training:
    """Training that a technique does before its layers are stored."""

    steps: int = 0
    batch: int = 0  # examples of each
    passes: float = SLOPES  # of a step, in forward passes: there and back, and a teacher's
    # forward passes of teachers who are asked about each example once, however often it comes
    asked: float = 0.0
    looks: int = 0  # at the examples held out
    # of every weight, in float32: itself, its gradient, and what AdamW keeps of it
    copies: float = 4.0
    roundings: int = 0  # of every layer, in forward passes


@singledispatch
def training_of(how: Technique) -> Training:
    return Training()


@training_of.register
def training_of_gradual(how: Gradual) -> Training:
    looks = (
        how.steps // how.prune_every
        + (how.steps // how.prune_every if how.regrow else how.cuts)
        + 2
    )
    # gates with all that belongs to them; a state to go back to
    kept = how.regularizer == "l0", bool(how.floor)
    return Training(
        how.steps,
        how.batch,
        SLOPES + (how.distill_weight > 0),
        looks=looks,
        copies=5.0 + 4 * kept[0] + kept[1],
    )


@training_of.register
def training_of_lottery_ticket(how: LotteryTicket) -> Training:
    """Besides the network in training: the first weights, its twin's, and what it is to go back
    to.
    """
    return Training(
        how.trainings * how.steps + how.seeds * how.rewind_step,
        how.batch,
        SLOPES,
        looks=how.trainings,
        copies=9.0,
    )


@training_of.register
def training_of_kernels(how: Kernels) -> Training:
    return (
        Training(how.recovery, how.batch, SLOPES, looks=LOOKS + 1, copies=5.0)
        if how.trains
        else Training()
    )


@training_of.register
def training_of_aware(how: Aware) -> Training:
    """Beside what every training holds, the best state so far."""
    looks = how.steps // how.look_every + 2
    return Training(
        how.steps, how.batch, SLOPES + (how.distill_weight > 0), looks=looks, copies=5.0
    )


@training_of.register(QAT)
@training_of.register(BitNet)
def training_of_qat_or_bitnet(how: QAT | BitNet) -> Training:
    """Each forward pass rounds every weight again; the backward one remembers codes and steps."""
    usual = training_of.dispatch(Aware)(how)
    return replace(usual, copies=usual.copies + 3, roundings=how.steps + usual.looks)


@training_of.register
def training_of_adapters(how: Adapters) -> Training:
    """Weights rest."""
    return replace(training_of.dispatch(Aware)(how), copies=1.5)


@training_of.register
def training_of_mixed_precision_training(how: MixedPrecisionTraining) -> Training:
    """Two models at most: the one in training, and the one that is kept. At each look, gradients
    twice
    more.
    """
    looks = how.trainings * (how.steps // how.look_every + 1)
    return Training(
        how.trainings * (how.steps + 2 * how.steps // how.look_every),
        how.batch,
        SLOPES,
        looks=looks,
        copies=6.0,
    )


@training_of.register
def training_of_learning(how: Learning) -> Training:
    """Besides weights, gradients and AdamW's states: the best state so far. A look is one of LOOKS,
    and one before.
    """
    return Training(how.steps, how.batch, SLOPES, looks=LOOKS + 1, copies=5.0)


@training_of.register
def training_of_distill(how: Distill) -> Training:
    """The student is a share of its teacher, of a width by its square. Whose states are compared,
    that teacher is asked at each step.
    """
    share = how.blocks * how.width**2 if how.student == SMALLER else 1.0
    if how.looks_twice:
        return Training(
            how.steps, how.batch, 2 * SLOPES * share, looks=LOOKS + 1, copies=5.0 * share + 1
        )
    times, teachers = how.generations if how.setting == "self" else 1, 1 + len(how.further)
    anew = how.features != "none" or how.attention_weight > 0
    passes = (
        SLOPES * (share + 1) + 1 + share
        if how.setting == "online"
        else SLOPES * share + teachers * anew
    )
    asked = 0.0 if anew or how.setting == "online" else float(teachers)
    copies = 5.0 * share + 1 + 4 * (how.setting == "online")
    return Training(
        times * how.steps, how.batch, passes, asked, looks=times * (LOOKS + 1), copies=copies
    )
