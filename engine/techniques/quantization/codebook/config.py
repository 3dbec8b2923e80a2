"""Codebooks found by k-means, optionally Huffman-coded."""

from typing import ClassVar, Literal

from engine.config.technique import Family, Technique, WeightState, option


class Codebook(Technique):
    list_position: ClassVar[int] = 110
    title: ClassVar[str] = "Codebook (k-means)"
    kind: ClassVar[str] = "Number format"
    family: ClassVar[Family] = "quantization"
    accepts: ClassVar[tuple[WeightState, ...]] = ("dense", "fewer", "zeros", "factors")
    summary: ClassVar[str] = (
        "k-means finds a few shared values for each layer; each weight stores the index of its "
        "value."
    )
    explanation: ClassVar[str] = (
        "The weights of a layer are grouped into 2ᵇ **clusters**, each with one shared value, its "
        "mean (**centroid**). A weight stores only the **index** of its cluster; the list of "
        "centroids is the **codebook**. Initial centroids are evenly spaced (linear), distributed "
        "like the weights (density), or random weights; linear ones preserve the rare large "
        "weights best. Some indices are far more frequent than others: **Huffman coding** gives "
        "those shorter codes without loss."
    )
    formula: ClassVar[str] = (
        r"\begin{gathered} \min_{c_1 \dots c_k} \sum_{i=1}^{k} \sum_{w \in C_i} |w - c_i|^2, "
        r"\qquad k = 2^b \\[4pt]"
        r" \text{bits per weight} \approx -\sum_i p_i \log_2 p_i \ \text{(Huffman)} \end{gathered}"
    )
    limitations: ClassVar[str] = (
        "One codebook serves a whole layer, so a few outliers take centroids from all other "
        "weights; small groups with their own scales are often better at equal size. Deep "
        "Compression also trains the centroids afterwards, without which 2 and 3 bits lose much "
        "quality. Table lookup needs a special kernel, and Huffman-coded weights must be decoded "
        "before use."
    )
    paper: ClassVar[str] = (
        "[Han et al. 2016, Deep Compression (arXiv:1510.00149)](https://arxiv.org/abs/1510.00149)"
    )

    technique: Literal["codebook"] = "codebook"
    bits: int = option(
        4,
        "Bits per index: 2^bits shared values.",
        title="Bits",
        ge=1,
        le=8,
    )
    rows: int = option(
        0,
        "Number of output channels (rows) that share one codebook. 0: the whole layer.",
        title="Rows per codebook",
        ge=0,
        le=65536,
        stops=(0, 1, 4, 16, 64, 256),
    )
    coding: Literal["fixed", "huffman"] = option(
        "fixed",
        "Fixed: all indices have the same number of bits. Huffman: frequent indices take fewer "
        "bits and are decoded when the model is first used.",
        title="Index coding",
        words={"fixed": "fixed length", "huffman": "Huffman"},
    )
    start: Literal["best", "linear", "density", "random"] = option(
        "linear",
        "Initial centroids of k-means, as in the paper: evenly spaced, at quantiles of the weights "
        "(density), or random weights. Best: runs k-means from evenly spaced values and from "
        "values as dense as the cube root of the weights' density, and keeps the better result.",
        title="Initialization",
        advanced=True,
        words={
            "best": "better of two",
            "linear": "evenly spaced (linear)",
            "density": "quantiles (density)",
            "random": "random weights (Forgy)",
        },
    )

    @property
    def size_is_at_most(self) -> bool:
        return self.coding == "huffman"

    def label(self) -> str:
        extras = (
            [f"{self.rows} rows each"] * (self.rows > 0)
            + ["Huffman"] * (self.coding == "huffman")
            + [self.start] * (self.start != "best")
        )
        return ", ".join([f"Codebook {self.bits}-bit", *extras])
