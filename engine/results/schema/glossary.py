"""Definitions of all numbers, used on the screen and in code. All numbers are measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    name: str  # label on the screen
    unit: str  # "" for a plain number
    meaning: str  # one or two sentences
    formula: str = ""  # LaTeX


GLOSSARY: dict[str, Term] = {
    # --- size
    "size_bytes": Term(
        "Size",
        "bytes",
        (
            "Bytes of the weight files, with a tensor stored under two names counted once; for a "
            "layer, its bytes in them."
        ),
    ),
    "original_bytes": Term(
        "Original size",
        "bytes",
        "Bytes of the layer in the original model's file, in its number format.",
    ),
    "parameters": Term(
        "Parameters",
        "",
        "Number of values in the weights. A tensor shared by two layers counts once.",
    ),
    "bits_per_weight": Term(
        "Bits per compressed weight",
        "bits",
        "Bits stored for the compressed layers, including scales and other overhead, per "
        "parameter of these layers in the "
        "original model. Uncompressed layers, such as embeddings, do not count.",
        (
            r"\frac{8 \cdot \text{bytes of the compressed layers}}{\text{their parameters in the "
            r"original model}}"
        ),
    ),
    "bits_per_parameter": Term(
        "Bits per parameter",
        "bits",
        "Bits of the model's weight files per parameter of the original model, including "
        "uncompressed layers. Removed "
        "parameters still count, so that pruning, low rank and quantization are comparable.",
        r"\frac{8 \cdot \text{bytes of the files}}{\text{parameters of the original model}}",
    ),
    "compression": Term(
        "Compression",
        "times",
        "Size of the original divided by the size of the compressed model. 1 means no gain.",
        r"\frac{\text{original bytes}}{\text{compressed bytes}}",
    ),
    "sparsity": Term(
        "Sparsity",
        "share",
        "Share of weights that are exactly zero. Zeros save bytes only in a sparse format.",
    ),
    "peak_rss_bytes": Term(
        "Peak memory", "bytes", "Maximum main memory of the worker process during the run."
    ),
    # --- error of the weights
    "relative_error": Term(
        "Relative error",
        "share",
        (
            "Frobenius norm of the change of the weights, relative to that of the original "
            "weights. 0 is no change."
        ),
        r"\frac{\lVert W - \hat W \rVert}{\lVert W \rVert}",
    ),
    "output_error": Term(
        "Output error",
        "share",
        "Relative change of the layer's outputs on calibration inputs of the uncompressed model, "
        "including the rounding of "
        "inputs if the method quantizes them. Errors of weights with small inputs count little.",
        r"\frac{\lVert WX - \hat W \hat X \rVert}{\lVert WX \rVert}",
    ),
    "sqnr_db": Term(
        "Signal to noise (SQNR)",
        "dB",
        (
            "Energy of the weights relative to that of the error, on a logarithmic scale: 6 dB "
            "more is half the error."
        ),
        r"10 \log_{10} \frac{\lVert W \rVert^2}{\lVert W - \hat W \rVert^2}",
    ),
    "largest_error": Term(
        "Largest error",
        "",
        "The largest change of any single weight of the layer.",
        r"\max_i |w_i - \hat w_i|",
    ),
    "cumulative_energy": Term(
        "Cumulative energy",
        "share",
        "Share of a weight matrix's squared Frobenius norm in its largest singular values.",
        r"\frac{\sum_{i \le r} \sigma_i^2}{\sum_i \sigma_i^2}",
    ),
    # --- low rank
    "rank": Term(
        "Rank",
        "",
        "Number of singular directions kept: columns of the left factor, rows of the right one.",
    ),
    "full_rank": Term("Full rank", "", "Rank without loss: the smaller dimension of the matrix."),
    "break_even": Term(
        "Break-even rank",
        "",
        (
            "Rank at which the two factors have as many parameters as the matrix. Only lower "
            "ranks save bytes."
        ),
        r"\frac{m n}{m + n}",
    ),
    "kept_parameters": Term(
        "Parameters kept",
        "share",
        "Share of a layer's parameters that remain: 80% kept is 20% removed.",
    ),
    "kept_energy": Term(
        "Energy kept",
        "share",
        (
            "Share of the squared singular values that is kept, of the factorized matrix "
            "(whitened or plain)."
        ),
        r"\frac{\sum_{i \le r} \sigma_i^2}{\sum_i \sigma_i^2}",
    ),
    "predicted_error": Term(
        "Predicted error",
        "share",
        "Error predicted from the dropped singular values: the square root of the lost energy.",
        r"\sqrt{\sum_{i > r} \sigma_i^2 \,\Big/\, \sum_i \sigma_i^2}",
    ),
    # --- quality
    "perplexity": Term(
        "Perplexity",
        "",
        "Exponential of the mean token loss over non-overlapping windows; lower is better. N "
        "counts predicted tokens, whose "
        "context lies within their window, and values of different tokenizers are not comparable.",
        r"\exp\!\left(-\frac{1}{N} \sum_{i=1}^{N} \log p(t_i \mid t_{<i})\right)",
    ),
    "loss": Term(
        "Loss",
        "nats",
        "Mean cross-entropy (natural logarithm) per predicted token or example. Lower is better.",
        r"-\frac{1}{N} \sum_{i=1}^{N} \log p(y_i)",
    ),
    "accuracy": Term(
        "Accuracy", "share", "Share of test examples classified correctly. Higher is better."
    ),
    "precision": Term(
        "Precision",
        "share",
        "Share of the examples predicted as this class that belong to it.",
        r"\frac{\text{true positives}}{\text{true positives} + \text{false positives}}",
    ),
    "recall": Term(
        "Recall",
        "share",
        "Share of the examples of this class that are predicted as it.",
        r"\frac{\text{true positives}}{\text{true positives} + \text{false negatives}}",
    ),
    "f1": Term(
        "F1",
        "share",
        "Harmonic mean of precision and recall, high only if both are.",
        r"\frac{2 \cdot \text{precision} \cdot \text{recall}}{\text{precision} + \text{recall}}",
    ),
    "macro_precision": Term(
        "Macro precision",
        "share",
        "Mean precision over classes; 0 for a class that was never predicted.",
    ),
    "macro_recall": Term(
        "Macro recall", "share", "Mean recall over classes, regardless of their frequency."
    ),
    "macro_f1": Term("Macro F1", "share", "Mean F1 over classes, regardless of their frequency."),
    "agreement": Term(
        "Agreement",
        "share",
        "Share of inputs with the same top prediction as the original model, correct or not.",
    ),
    "similarity": Term(
        "Similarity (CKA)",
        "",
        "Similarity of two models' hidden states on the same inputs: 1 if they differ only by "
        "rotation and scale, about 0 if "
        "they have nothing in common. Linear centered kernel alignment with unbiased estimates.",
        r"\frac{\mathrm{HSIC}(X, Y)}{\sqrt{\mathrm{HSIC}(X, X)\,\mathrm{HSIC}(Y, Y)}}",
    ),
    # --- time
    "seconds": Term(
        "Duration",
        "s",
        (
            "Duration of the run: loading, evaluating the original, compressing, and evaluating "
            "the result."
        ),
    ),
    "median_ms": Term(
        "Latency",
        "ms",
        "Median time of one forward pass, with original and compressed model in alternation. "
        "Measured only if a real kernel computes with the stored weights.",
    ),
    "compress_seconds": Term(
        "Compression time", "s", "Time spent on compression, without loading and evaluation."
    ),
}
