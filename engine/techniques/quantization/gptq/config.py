"""GPTQ: rounding with compensation of errors."""

from typing import Any, ClassVar, Literal

from engine.config.technique import Needs, option
from engine.techniques.options import DAMPING
from engine.techniques.quantization.options import RANGE, GroupQuantized
from engine.techniques.quantization.rounding.config import RoundToNearest
from engine.techniques.quantization.scale_options import Range


class GPTQ(GroupQuantized):
    list_position: ClassVar[int] = 40
    title: ClassVar[str] = "GPTQ"
    kind: ClassVar[str] = "Uses calibration data"
    needs: ClassVar[Needs] = "gram"
    sequential: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Rounds weights one column at a time and compensates for each rounding error in the "
        "columns not yet rounded."
    )
    explanation: ClassVar[str] = (
        "Calibration data gives the matrix H of products of a layer's inputs (the **Hessian** of "
        "the layer's squared output error). Columns are rounded one at a time, and the remaining "
        "columns are adjusted to compensate for each rounding error as far as correlations between "
        "inputs allow. Row j of U, the Cholesky factor of the inverse of H, accounts for just the "
        "columns not yet rounded. The grid is the same as in rounding to nearest; only the codes "
        "are chosen better."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} H = 2XX^\top + \lambda I, \qquad H^{-1} = U^\top U \\[4pt]"
        r" e = \frac{w_j - \mathrm{quant}(w_j)}{U_{jj}} \\[4pt]"
        r" w_{j+1:} \mathrel{-}= e\,U_{j,\,j+1:} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "It can overfit the calibration data if there are few samples or if they differ from the "
        "model's real inputs. The algorithm is greedy, so single layers may have a larger error "
        "than with rounding to nearest. Weights are unpacked before each product: 4-bit weights "
        "save memory bandwidth (text generation), not arithmetic (long prompts, large batches)."
    )
    paper: ClassVar[str] = (
        "[Frantar et al. 2022, GPTQ (arXiv:2210.17323)](https://arxiv.org/abs/2210.17323)"
    )
    meaning_if_absent: ClassVar[dict[str, Any]] = {
        "range": "absmax",
        "percentile": 99.9,
        "rms_multiple": 3.0,
    }

    technique: Literal["gptq"] = "gptq"
    activation_order: bool = option(
        True,
        "Rounds the columns with the strongest inputs first, while the most columns are left to "
        "compensate. Costs no bytes with static groups.",
        title="Activation order",
    )
    static_groups: bool = option(
        True,
        "Chooses all scales before rounding and keeps each column's group. Otherwise a group's "
        "scale is chosen when its first column is rounded; with activation order, groups then "
        "follow that order, which is stored too.",
        title="Static groups",
        advanced=True,
    )
    damping: float = option(**DAMPING)

    range: Range = option(**RANGE)
    percentile: float = RoundToNearest.model_fields["percentile"]
    rms_multiple: float = RoundToNearest.model_fields["rms_multiple"]

    def rounding(self) -> RoundToNearest:
        reach = {name: getattr(self, name) for name in ("range", "percentile", "rms_multiple")}
        return super().rounding().model_copy(update=reach)

    def label(self) -> str:
        extras = [self.range] * (self.range != "mse") + ["no activation order"] * (
            not self.activation_order
        )
        return ", ".join([super().label(), *extras])
