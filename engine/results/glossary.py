"""What every number means: the words the screen shows and the code uses. Each is measured; none is a guess."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    name: str  # as it is written on the screen
    unit: str  # "" for a plain number
    meaning: str  # one or two plain sentences
    formula: str = ""  # LaTeX


GLOSSARY: dict[str, Term] = {
    # --- size
    "size_bytes": Term("Size", "bytes", "The bytes of the file that is written; for a layer, what it takes up in that file."),
    "original_bytes": Term("Original size", "bytes", "The bytes the layer takes up in the original model's file, in that file's own number format."),
    "parameters": Term("Parameters", "", "How many numbers the weights hold. A tensor that two layers share is counted once."),
    "bits_per_weight": Term(
        "Bits per weight", "bits",
        "All bytes stored for the compressed layers, scales and other extras included, spread over their parameters. "
        "A model in 16-bit numbers has exactly 16.",
        r"\frac{8 \cdot \text{bytes of the layers}}{\text{parameters of the layers}}",
    ),
    "compression": Term(
        "Compression", "times", "How many times smaller the compressed file is than the original. 1 means no gain.",
        r"\frac{\text{original bytes}}{\text{compressed bytes}}",
    ),
    "sparsity": Term("Sparsity", "share", "The share of weights that are exactly zero. Zeros save bytes only in a format that leaves them out."),
    "kept": Term("Kept", "share", "The share of parameters that remain after pruning: one minus what was removed."),
    "peak_rss_bytes": Term("Peak memory", "bytes", "The most main memory the working process held at once during the run."),
    # --- error of the weights
    "relative_error": Term(
        "Relative error", "share",
        "How far the compressed weights are from the original ones, compared with the size of the original ones. 0 is no change.",
        r"\frac{\lVert W - \hat W \rVert}{\lVert W \rVert}",
    ),
    "output_error": Term(
        "Output error", "share",
        "How far the layer's outputs move, on calibration inputs of the uncompressed model. A large weight error on a quiet input counts little.",
        r"\frac{\lVert XW - X\hat W \rVert}{\lVert XW \rVert}",
    ),
    "sqnr_db": Term(
        "Signal to noise (SQNR)", "dB", "The strength of the weights against that of the error, on a logarithmic scale: 6 dB more is half the error.",
        r"10 \log_{10} \frac{\lVert W \rVert^2}{\lVert W - \hat W \rVert^2}",
    ),
    "largest_error": Term("Largest error", "", "The largest change of any single weight of the layer.", r"\max_i |w_i - \hat w_i|"),
    "cumulative_energy": Term(
        "Cumulative energy", "share", "The share of a weight matrix's squared size that its largest singular values hold together.",
        r"\frac{\sum_{i \le r} \sigma_i^2}{\sum_i \sigma_i^2}",
    ),
    # --- low rank
    "rank": Term("Rank", "", "How many directions of a weight matrix are left: columns of its left factor, rows of its right one."),
    "full_rank": Term("Full rank", "", "The rank at which nothing is lost: the smaller side of the matrix."),
    "break_even": Term(
        "Break-even rank", "", "The rank at which a matrix's two factors take as many parameters as it has. Only below it is anything saved.",
        r"\frac{m n}{m + n}",
    ),
    "kept_parameters": Term("Parameters kept", "share", "The share of a layer's parameters that is left: 80 % kept is 20 % removed."),
    "kept_energy": Term(
        "Energy kept", "share", "The share of the squared singular values that is left, of the matrix as it was factorized: whitened or plain.",
        r"\frac{\sum_{i \le r} \sigma_i^2}{\sum_i \sigma_i^2}",
    ),
    "predicted_error": Term(
        "Predicted error", "share", "What the singular values left out say of the layer's error: the root of the energy that is lost.",
        r"\sqrt{\sum_{i > r} \sigma_i^2 \,\Big/\, \sum_i \sigma_i^2}",
    ),
    # --- quality
    "perplexity": Term(
        "Perplexity", "", "How many tokens the model hesitates between on average, over non-overlapping windows of the test text. Lower is better.",
        r"\exp\!\left(-\frac{1}{N} \sum_{i=1}^{N} \log p(t_i \mid t_{<i})\right)",
    ),
    "loss": Term(
        "Loss", "nats", "The mean cross-entropy, with the natural logarithm, per predicted token or per judged example. Lower is better.",
        r"-\frac{1}{N} \sum_{i=1}^{N} \log p(y_i)",
    ),
    "accuracy": Term("Accuracy", "share", "The share of test examples the model judges correctly. Higher is better."),
    "precision": Term(
        "Precision", "share", "Of the examples the model gave this class, the share that belongs to it.",
        r"\frac{\text{true positives}}{\text{true positives} + \text{false positives}}",
    ),
    "recall": Term(
        "Recall", "share", "Of the examples that belong to this class, the share the model found.",
        r"\frac{\text{true positives}}{\text{true positives} + \text{false negatives}}",
    ),
    "f1": Term(
        "F1", "share", "The harmonic mean of precision and recall: high only when both are.",
        r"\frac{2 \cdot \text{precision} \cdot \text{recall}}{\text{precision} + \text{recall}}",
    ),
    "macro_precision": Term("Macro precision", "share", "Precision of every class, averaged with equal weight; 0 for one that no example was given."),
    "macro_recall": Term("Macro recall", "share", "Recall of every class, averaged with equal weight, however rare a class is."),
    "macro_f1": Term("Macro F1", "share", "F1 of every class, averaged with equal weight, so that rare classes count as much as common ones."),
    "agreement": Term(
        "Agreement", "share", "How often the compressed model makes the same top choice as the original, on the same inputs, right or wrong.",
    ),
    "similarity": Term(
        "Similarity (CKA)", "",
        "How alike two models' states are on the same inputs: 1 where one is the other turned and scaled, about 0 where they have nothing in common. "
        "Centred kernel alignment with linear kernels, its terms estimated without bias.",
        r"\frac{\mathrm{HSIC}(X, Y)}{\sqrt{\mathrm{HSIC}(X, X)\,\mathrm{HSIC}(Y, Y)}}",
    ),
    "kl": Term(
        "KL divergence", "nats",
        "How far the compressed model's probabilities are from the original's, averaged over predicted tokens. 0 is no change.",
        r"\sum_t p(t) \log \frac{p(t)}{\hat p(t)}",
    ),
    # --- time
    "seconds": Term("Duration", "s", "From the start of the run to its end: loading, measuring the original, compressing and measuring again."),
    "median_ms": Term(
        "Latency", "ms",
        "The time of one forward pass: the median of several, original and compressed in turns. Measured only where a real kernel multiplies the "
        "weights as they are stored.",
    ),
    "compress_seconds": Term("Compression time", "s", "The part of the run spent on compressing, without loading and measuring."),
}  # fmt: skip
