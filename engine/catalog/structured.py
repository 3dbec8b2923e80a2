"""Structured pruning: whole neurons, heads, channels and blocks are taken out, so that the tensors that are left are smaller."""

from typing import ClassVar, Literal

from engine.catalog.technique import Family, Made, Needs, Technique, option


class Shrinking(Technique):
    """What the methods that take whole structures out of a model share."""

    family: ClassVar[Family] = "pruning"
    takes: ClassVar[tuple[Made, ...]] = ("dense",)
    leaves: ClassVar[Made] = "fewer"


class Structured(Shrinking):
    title: ClassVar[str] = "Neurons, heads or channels"
    kind: ClassVar[str] = "Whole structures"
    summary: ClassVar[str] = "Take whole neurons, heads or channels out: the tensors shrink, and every kernel runs them faster."
    idea: ClassVar[str] = (
        "A zero inside a matrix is still multiplied. A whole **neuron** can be taken out instead: its row in the layer before and its column in the "
        "layer after; likewise a **head** of attention, or a **channel** of a convolution with all layers that read it. What is left is an "
        "ordinary, smaller model. Each structure gets a score: the norm of its weights, that of its output on data, or how the loss would change."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} S^{\ell_2}_j = \Bigl(\sum_{w \in j} w^2\Bigr)^{1/2} \\[4pt] S^{\text{data}}_j = \lVert X_j \rVert_2 \cdot \lVert W_{:,j}"
        r" \rVert_2 \\[4pt] S^{\text{Taylor}}_j = \Bigl|\sum_i W_{ij}\, \frac{\partial L}{\partial W_{ij}}\Bigr| \end{gathered}"
    )
    fails: ClassVar[str] = (
        "It is much coarser than removing single weights: without training afterwards, quality falls early, and small models have little to spare; "
        "convolution networks fall first, since their batch norms still expect what went. "
        "Heads that share keys and values (grouped-query attention) cannot go one by one without leaving groups unequal."
    )
    paper: ClassVar[str] = (
        "[Michel et al. 2019, Are Sixteen Heads Really Better than One? (arXiv:1905.10650)](https://arxiv.org/abs/1905.10650); channels: "
        "[Fang et al. 2023, DepGraph (arXiv:2301.12900)](https://arxiv.org/abs/2301.12900)"
    )

    technique: Literal["structured"] = "structured"
    what: Literal["auto", "neurons", "heads", "channels"] = option(
        "auto",
        "What is taken out: neurons of the feed-forward layers, heads of attention, or channels of convolutions. By default what the model has: "
        "channels where it is made of convolutions, else neurons.",
        title="What goes",
        words={"auto": "neurons, or channels of a convolution network", "heads": "attention heads"},
    )
    share: float = option(
        0.25, "Share of the neurons, heads or channels that goes, rounded to whole ones. 0 leaves the model as it is.",
        title="Share taken out", ge=0, le=0.99,
    )  # fmt: skip
    score: Literal["l2", "l1", "linf", "activations", "taylor"] = option(
        "l2",
        "How much a structure matters: the size of its weights (L2, L1 or largest), the size of its output on calibration data (as Wanda weighs "
        "single weights), or how much the loss would change by its slope (Taylor, first order).",
        title="Chosen by (score)",
        words={"l2": "size of its weights (L2 norm)", "l1": "size of its weights (L1 norm)", "linf": "its largest weight (L∞ norm)",
               "activations": "size of its output on data", "taylor": "change of the loss (Taylor)"},
    )  # fmt: skip
    scope: Literal["layer", "global"] = option(
        "layer",
        "Among which structures the least important are looked for: those of one layer, or of all layers, so that some lose more than others. "
        "Across layers, norms are compared as multiples of their layer's mean, and each layer keeps at least one.",
        title="Share taken of (scope)",
        words={"layer": "each layer", "global": "all layers together (global)"},
    )
    together: Literal["groups", "queries"] = option(
        "groups",
        "Where several heads share keys and values (grouped-query attention): whole groups go, keys and values with them; or as many heads of every "
        "group, so that groups stay equal, and keys and values stay.",
        title="Heads that share keys and values",
        advanced=True,
        when={"what": ["heads"]},
        words={"groups": "go together, group by group", "queries": "go evenly from each group"},
    )

    @property
    def needs(self) -> Needs:
        return {"activations": "range", "taylor": "gradients"}.get(self.score, "nothing")

    @property
    def may_change_nothing(self) -> bool:
        return self.share == 0

    def label(self) -> str:
        what = {"auto": "Neurons or channels"}.get(self.what, self.what.capitalize())
        by = {"l2": "", "l1": ", by L1", "linf": ", by L∞", "activations": ", by output", "taylor": ", by Taylor"}[self.score]
        whose = {"groups": " with their keys and values", "queries": " evenly from each group"}[self.together] if self.what == "heads" else ""
        return f"{what}{whose} −{100 * self.share:g} %{' of all layers' if self.scope == 'global' else ''}{by}"


class Blocks(Shrinking):
    title: ClassVar[str] = "Whole blocks (ShortGPT)"
    kind: ClassVar[str] = "Whole structures"
    needs: ClassVar[Needs] = "states"
    summary: ClassVar[str] = "Take out the blocks that change what flows through them least."
    idea: ClassVar[str] = (
        "Each block of a transformer adds something to the state that flows through it. How much is seen on calibration data: where the state points "
        "in the same direction before and after, the block has done little. Its **influence** is one minus the cosine of the two, the mean over all "
        "tokens. The blocks of least influence go, with all their layers."
    )
    formula: ClassVar[str] = r"\mathrm{BI}_i = 1 - \mathbb{E}_t\, \frac{x_{i,t}^\top\, x_{i+1,t}}{\lVert x_{i,t}\rVert_2 \lVert x_{i+1,t}\rVert_2}"
    fails: ClassVar[str] = (
        "A model of few blocks has none to spare. Blocks are judged as if each went alone; and a small turn of the state may still be the one "
        "that matters, as writing shows before perplexity does."
    )
    paper: ClassVar[str] = "[Men et al. 2024, ShortGPT (arXiv:2403.03853)](https://arxiv.org/abs/2403.03853)"

    technique: Literal["blocks"] = "blocks"
    count: int = option(
        1, "How many blocks go, those of least influence first. 0 leaves the model as it is.", title="Blocks taken out", ge=0, le=1024,
        stops=(0, 1, 2, 3, 4, 6, 8, 12, 16),
    )  # fmt: skip

    @property
    def may_change_nothing(self) -> bool:
        return self.count == 0

    def label(self) -> str:
        return f"Blocks −{self.count}"
