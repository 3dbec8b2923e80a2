"""Pruning of single weights by a score."""

from typing import ClassVar, Literal

from engine.config.technique import Needs, option
from engine.techniques.pruning.options import Pruning


class Random(Pruning):
    list_position: ClassVar[int] = 200
    title: ClassVar[str] = "Random pruning"
    brief: ClassVar[str] = "Random"
    kind: ClassVar[str] = "Needs no data"
    summary: ClassVar[str] = "Removes random weights: the baseline for every other method."
    explanation: ClassVar[str] = (
        "Exactly the given share of weights, chosen at random. A baseline: it shows how much a "
        "good criterion is worth and how robust the network is."
    )
    formula: ClassVar[str] = (
        r"\hat w_i = m_i\, w_i, \qquad m \in \{0, 1\}^n \text{ uniformly random with } "
        r"\sum_i m_i = (1-s)\,n"
    )
    limitations: ClassVar[str] = "Quality drops early and varies from seed to seed."
    paper: ClassVar[str] = (
        "[Blalock et al. 2020, What is the State of Neural Network Pruning? "
        "(arXiv:2003.03033)](https://arxiv.org/abs/2003.03033)"
    )

    technique: Literal["random"] = "random"
    draw: int = option(
        0,
        "Seed for the choice of weights.",
        title="Seed",
        advanced=True,
        ge=0,
        le=2**31 - 1,
        stops=(0, 1, 2, 3, 4),
    )


class Magnitude(Pruning):
    list_position: ClassVar[int] = 150
    title: ClassVar[str] = "Magnitude pruning (L1)"
    brief: ClassVar[str] = "Magnitude"
    kind: ClassVar[str] = "Needs no data"
    summary: ClassVar[str] = "Removes the weights closest to zero."
    explanation: ClassVar[str] = (
        "A weight near zero contributes little to the output. This needs no data and almost no "
        "time, and is a strong baseline if the network is trained afterwards. It ignores the "
        "inputs: a small weight on a strong input can matter more than a large weight on a weak "
        "one."
    )
    formula: ClassVar[str] = r"S_{ij} = |W_{ij}|, \qquad \hat W = W \odot [\,S > \tau\,]"
    limitations: ClassVar[str] = (
        "Without training afterwards, language models break near 50%: a few inputs are far larger "
        "than the others, and their weights are not. Wanda takes inputs into account."
    )
    paper: ClassVar[str] = (
        "[Han et al. 2015, Learning both Weights and Connections "
        "(arXiv:1506.02626)](https://arxiv.org/abs/1506.02626)"
    )

    technique: Literal["magnitude"] = "magnitude"


class Wanda(Pruning):
    list_position: ClassVar[int] = 160
    title: ClassVar[str] = "Wanda"
    kind: ClassVar[str] = "Uses calibration data"
    needs: ClassVar[Needs] = "range"
    summary: ClassVar[str] = (
        "Removes the weights with the smallest product of magnitude and input norm."
    )
    explanation: ClassVar[str] = (
        "The importance of a weight is its magnitude times the norm of its input channel on "
        "calibration data. Weights are compared within a layer, as in the other methods, or within "
        "a row, as in the paper. One pass over little data, no training, and the remaining weights "
        "are unchanged."
    )
    formula: ClassVar[str] = r"S_{ij} = |W_{ij}|\cdot \lVert X_j \rVert_2"
    limitations: ClassVar[str] = (
        "The remaining weights do not compensate for the removed ones: at high sparsity and for "
        "2:4, SparseGPT is better."
    )
    paper: ClassVar[str] = (
        "[Sun et al. 2023, Wanda (arXiv:2306.11695)](https://arxiv.org/abs/2306.11695)"
    )

    technique: Literal["wanda"] = "wanda"


class Taylor(Pruning):
    list_position: ClassVar[int] = 180
    title: ClassVar[str] = "Gradient (Taylor, first order)"
    brief: ClassVar[str] = "Gradient"
    kind: ClassVar[str] = "Uses gradients"
    needs: ClassVar[Needs] = "gradients"
    summary: ClassVar[str] = (
        "Removes the weights whose removal changes the loss least to first order."
    )
    explanation: ClassVar[str] = (
        "The gradient tells how the loss changes when a weight changes a little; setting the "
        "weight to zero changes it by about gradient times weight. The gradient is averaged over "
        "calibration data before the absolute value is taken; weights with the smallest product "
        "are removed first."
    )
    formula: ClassVar[str] = (
        r"S_{ij} = \left|\, W_{ij}\, \frac1N \sum_n \frac{\partial L_n}{\partial W_{ij}} \right|"
    )
    limitations: ClassVar[str] = (
        "In a trained model, gradients of different examples cancel in the mean, so the score is "
        "noisy with little data. The paper averages the square of the product instead, so nothing "
        "cancels; apart from a constant, that is the score of Optimal Brain Damage. It needs the "
        "whole model and its gradients in memory."
    )
    paper: ClassVar[str] = (
        "[Molchanov et al. 2019, Importance Estimation for Neural Network Pruning "
        "(arXiv:1906.10771)](https://arxiv.org/abs/1906.10771)"
    )

    technique: Literal["taylor"] = "taylor"


class OptimalBrainDamage(Pruning):
    list_position: ClassVar[int] = 190
    title: ClassVar[str] = "Optimal Brain Damage"
    kind: ClassVar[str] = "Second order"
    needs: ClassVar[Needs] = "gradients"
    summary: ClassVar[str] = (
        "Removes the weights whose removal changes the loss least to second order."
    )
    explanation: ClassVar[str] = (
        "In a trained model the mean gradient is near zero, so the **curvature** decides how fast "
        "the loss rises when a weight changes. The diagonal of the Hessian is estimated by the "
        "mean squared gradient of single examples (the empirical **Fisher** information, with "
        "labels); correlations between weights are ignored."
    )
    formula: ClassVar[str] = (
        r"S_{ij} = \tfrac12\, F_{ij}\, W_{ij}^2, \qquad F_{ij} = \frac1N \sum_n "
        r"\left(\frac{\partial L_n}{\partial W_{ij}}\right)^2"
    )
    limitations: ClassVar[str] = (
        "Weights that can replace each other are scored as if they were independent. It needs one "
        "backward pass per example and the whole model with its gradients in memory."
    )
    paper: ClassVar[str] = (
        "[LeCun, Denker & Solla 1989, Optimal Brain "
        "Damage](https://papers.nips.cc/paper/1989/hash/"
        "6c9882bbac1c7093bd25041881277658-Abstract.html)"
    )

    technique: Literal["optimal-brain-damage"] = "optimal-brain-damage"
