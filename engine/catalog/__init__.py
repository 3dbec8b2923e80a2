"""What can be asked for: techniques, models and tasks. Typed configs; nothing here computes."""

from typing import Annotated, Union

from pydantic import Field

from engine.catalog.aware import QAT, BitNet, LoRA, QLoRA
from engine.catalog.calibrated import AWQ, GPTQ, Activations, SmoothQuant
from engine.catalog.distillation import Distill, FineTune
from engine.catalog.formats import Codebook, FloatingPoint, Logarithmic, Ternary
from engine.catalog.hqq import HQQ
from engine.catalog.llm_int8 import LLMInt8
from engine.catalog.lowrank import CP, SVD, LowRankCorrection, Tucker
from engine.catalog.mixed import AWQSalience, MixedPrecision
from engine.catalog.precision import MixedPrecisionTraining
from engine.catalog.pruning import Magnitude, OptimalBrainDamage, Random, SparseGPT, Taylor, Wanda
from engine.catalog.quantization import BitsAndBytes, RoundToNearest
from engine.catalog.schedules import Gradual, LotteryTicket
from engine.catalog.structured import Blocks, Structured
from engine.catalog.technique import Technique

EVERY = (
    RoundToNearest, BitsAndBytes, HQQ, GPTQ, AWQ, Activations, SmoothQuant, LLMInt8, MixedPrecision, AWQSalience,
    Codebook, Logarithmic, FloatingPoint, Ternary, Magnitude, Wanda, SparseGPT, Taylor, OptimalBrainDamage, Random,
    Structured, Blocks, Gradual, LotteryTicket, SVD, LowRankCorrection, Tucker, CP,
    Distill, FineTune, QAT, BitNet, LoRA, QLoRA, MixedPrecisionTraining,
)  # fmt: skip
TECHNIQUES: dict[str, type[Technique]] = {cls.model_fields["technique"].default: cls for cls in EVERY}
Step = Annotated[Union[EVERY], Field(discriminator="technique")]  # noqa: UP007, made of a tuple
