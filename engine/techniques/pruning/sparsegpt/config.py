"""SparseGPT: pruning with compensation of the remaining weights."""

from typing import ClassVar, Literal

from engine.config.technique import Needs, option
from engine.techniques.options import DAMPING
from engine.techniques.pruning.options import Pruning


class SparseGPT(Pruning):
    list_position: ClassVar[int] = 170
    title: ClassVar[str] = "SparseGPT"
    kind: ClassVar[str] = "Second order"
    needs: ClassVar[Needs] = "gram"
    sequential: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "Removes weights column by column and updates the remaining columns to compensate."
    )
    explanation: ClassVar[str] = (
        "As in GPTQ, calibration data gives the matrix H of products of a layer's inputs. A "
        "weight's importance is the output error left after all other weights have compensated for "
        "its removal as well as possible (**Optimal Brain Surgeon**). Columns are processed from "
        "left to right: some of their weights are set to zero, and the columns after them are "
        "updated. Row j of U, the Cholesky factor of the inverse of H, accounts for just the "
        "columns not yet processed."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} H^{-1} = U^\top U, \qquad S_{ij} = "
        r"\left(\frac{W_{ij}}{U_{jj}}\right)^2 \\[4pt]"
        r" e = \frac{w_j - m_j w_j}{U_{jj}} \\[4pt] w_{j+1:} \mathrel{-}= e\,U_{j,\,j+1:} "
        r"\end{gathered}"
    )
    limitations: ClassVar[str] = (
        "It can overfit the calibration data, and it inverts one matrix per layer input. Above 60% "
        "sparsity the model needs training afterwards."
    )
    paper: ClassVar[str] = (
        "[Frantar & Alistarh 2023, SparseGPT (arXiv:2301.00774)](https://arxiv.org/abs/2301.00774)"
    )
    view_notes: ClassVar[dict[str, str]] = {
        "Importance": "SparseGPT prunes one block of columns at a time by the scores of the "
        "updated weights. The chart shows scores of the original weights, so kept and removed "
        "weights share bins."
    }

    technique: Literal["sparsegpt"] = "sparsegpt"
    block_columns: int = option(
        128,
        "Number of columns whose masks are chosen together, before later columns are updated.",
        title="Block size (columns)",
        advanced=True,
        ge=1,
        le=65536,
        stops=(32, 64, 128, 256, 512),
    )
    damping: float = option(**DAMPING)
