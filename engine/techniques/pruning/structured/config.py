"""Removal of neurons, attention heads and channels."""

from typing import ClassVar, Literal

from engine.config.technique import Needs, option
from engine.techniques.pruning.options import StructuredPruning


class Structured(StructuredPruning):
    list_position: ClassVar[int] = 210
    title: ClassVar[str] = "Neurons, heads or channels"
    kind: ClassVar[str] = "Structured"
    summary: ClassVar[str] = (
        "Removes neurons, attention heads or channels: tensors shrink, and no special kernel is "
        "needed."
    )
    explanation: ClassVar[str] = (
        "A zero inside a matrix is still multiplied. Removing a **neuron** deletes its row in one "
        "layer and its column in the next. The same holds for an attention **head**, or a "
        "**channel** of a convolution and all layers that read it. The result is an ordinary "
        "smaller model; GPUs run it faster if widths remain multiples of 8 to 128. Structures are "
        "ranked by the norm "
        "of their weights, the size of their output on data, or the change of the loss. Taylor "
        "takes the absolute value of the mean gradient, where Michel et al. take the mean of "
        "absolute values."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} S^{\ell_2}_j = \Bigl(\sum_{w \in j} w^2\Bigr)^{1/2} \\[4pt] "
        r"S^{\text{data}}_j = \lVert X_j \rVert_2 \cdot \lVert W_{:,j}"
        r" \rVert_2 \\[4pt] S^{\text{Taylor}}_j = \Bigl|\sum_i W_{ij}\, \frac1N \sum_n "
        r"\frac{\partial L_n}{\partial W_{ij}}\Bigr| \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "Much coarser than removing single weights: without training afterwards, quality drops "
        "early, and small models have little redundancy. Convolutional networks drop first, "
        "because their batch norm statistics still include the removed channels. Heads that share "
        "keys and values (grouped-query attention) cannot be removed one at a time without making "
        "groups unequal."
    )
    paper: ClassVar[str] = (
        "[Michel et al. 2019, Are Sixteen Heads Really Better than One? "
        "(arXiv:1905.10650)](https://arxiv.org/abs/1905.10650); channels: "
        "[Fang et al. 2023, DepGraph (arXiv:2301.12900)](https://arxiv.org/abs/2301.12900)"
    )

    technique: Literal["structured"] = "structured"
    what: Literal["auto", "neurons", "heads", "channels"] = option(
        "auto",
        "Structures to remove: neurons of feed-forward layers, attention heads, or channels of "
        "convolutions. Auto: channels in convolutional networks, otherwise neurons.",
        title="Structure",
        words={"auto": "auto (neurons or channels)", "heads": "attention heads"},
    )
    share: float = option(
        0.25,
        "Share of the neurons, heads or channels to remove, rounded to a whole number. 0 changes "
        "nothing.",
        title="Share removed",
        ge=0,
        le=0.99,
    )
    score: Literal["l2", "l1", "linf", "activations", "taylor"] = option(
        "activations",
        "Importance of a structure: the size of its output on calibration data (as in Wanda), the "
        "first-order change of the loss (Taylor), or the norm of its weights (L2, L1 or largest), "
        "which needs no data.",
        title="Importance score",
        words={
            "l2": "L2 norm of weights",
            "l1": "L1 norm of weights",
            "linf": "largest weight (L∞ norm)",
            "activations": "output on calibration data",
            "taylor": "change of the loss (Taylor)",
        },
    )
    scope: Literal["layer", "global"] = option(
        "layer",
        "Structures that are ranked together: those of one layer, or of all layers, so that some "
        "layers lose more than others. Across layers, scores other than Taylor's are divided by "
        "their layer's mean, and each layer keeps at least one structure.",
        title="Scope",
        words={"layer": "per layer", "global": "global (all layers)"},
    )
    together: Literal["groups", "queries"] = option(
        "groups",
        "With grouped-query attention: removes whole groups with their keys and values, or the "
        "same number of query heads from each group, which keeps all keys and values.",
        title="Grouped-query heads",
        advanced=True,
        when={"what": ["heads"]},
        words={
            "groups": "remove whole groups",
            "queries": "remove evenly from each group",
        },
    )

    @property
    def needs(self) -> Needs:
        return {"activations": "range", "taylor": "gradients"}.get(self.score, "nothing")

    @property
    def may_change_nothing(self) -> bool:
        return self.share == 0

    def label(self) -> str:
        what = {"auto": "Neurons or channels"}.get(self.what, self.what.capitalize())
        by = {
            "l2": "",
            "l1": ", by L1",
            "linf": ", by L∞",
            "activations": ", by output",
            "taylor": ", by Taylor",
        }[self.score]
        suffix = (
            {"groups": " with their keys and values", "queries": " evenly from each group"}[
                self.together
            ]
            if self.what == "heads"
            else ""
        )
        return (
            f"{what}{suffix} "
            f"−{100 * self.share:g}%{' of all layers' if self.scope == 'global' else ''}{by}"
        )
