"""Options of techniques with the settings that are compared, for ``tests.benchmarks.defaults``."""

from dataclasses import dataclass

LM, CLASSIFIER, CNN = "docs-lm", "docs-classifier", "digits-cnn"


@dataclass(frozen=True)
class Group:
    """One option: settings of one technique that differ in it alone."""

    option: str
    model: str
    base: dict
    settings: tuple[dict, ...]


def rtn(**fields: object) -> dict:
    return {
        "technique": "round-to-nearest",
        "scheme": "symmetric",
        "range": "absmax",
        "grid": "full",
        "group_size": 32,
    } | fields


def grid(technique: str, **fields: object) -> dict:
    return {"technique": technique, "bits": 3, "group_size": 32, "scheme": "symmetric"} | fields


def pruning(technique: str, **fields: object) -> dict:
    return {"technique": technique, "sparsity": 0.5} | fields


ORIGINAL = ({},)
RANGES = ({"range": "mse"}, {"range": "absmax"})
ACTIVATIONS = {"weight_bits": 8, "activation_bits": 8, "mode": "static", "scheme": "asymmetric"}
OBSERVERS = ({"observer": "mse"}, {"observer": "min-max"})
SCOPES = ({"scope": "layer"}, {"scope": "row"}, {"scope": "global"})
SCORES = ({"score": "activations"}, {"score": "l2"}, {"score": "l1"}, {"score": "taylor"})
SCHEMES = ({"scheme": "symmetric"}, {"scheme": "asymmetric"})
SVD = {"technique": "svd", "whitening": "svd-llm"}
QAT = rtn(technique="qat", bits=3, steps=60, batch=8, rate=1e-3, learn_scales=False)
SVD_SCOPES = ({"scope": "global"}, {"scope": "layer"})
STARTS = ({"start": "linear"}, {"start": "best"}, {"start": "density"})
ORDERS = ({"order": "low-rank-first"}, {"order": "quantize-first"})
TAUGHT = ({"distill_weight": 1.0}, {"distill_weight": 0.5}, {"distill_weight": 0.0})

GROUPS = {
    "original-lm": Group("not compressed", LM, {}, ORIGINAL),
    "original-classifier": Group("not compressed", CLASSIFIER, {}, ORIGINAL),
    "original-cnn": Group("not compressed", CNN, {}, ORIGINAL),
    "rounding-range-2": Group("round-to-nearest: range, 2 bits", LM, rtn(bits=2), RANGES),
    "rounding-range-3": Group(
        "round-to-nearest: range, 3 bits", LM, rtn(bits=3), (*RANGES, {"range": "rms"})
    ),
    "rounding-range-4": Group(
        "round-to-nearest: range, 4 bits", LM, rtn(bits=4), (*RANGES, {"range": "rms"})
    ),
    "rounding-range-rows": Group(
        "round-to-nearest: range, 4 bits, one scale a row",
        LM,
        rtn(bits=4, granularity="channel"),
        RANGES,
    ),
    "rounding-range-classifier": Group(
        "round-to-nearest: range, 3 bits", CLASSIFIER, rtn(bits=3), RANGES
    ),
    "rounding-range-cnn": Group("round-to-nearest: range, 3 bits", CNN, rtn(bits=3), RANGES),
    "rounding-scheme": Group(
        "round-to-nearest: scheme, 4 bits", LM, rtn(bits=4, range="mse"), SCHEMES
    ),
    "rounding-levels": Group(
        "round-to-nearest: grid, 3 bits",
        LM,
        rtn(bits=3, range="mse"),
        ({"grid": "full"}, {"grid": "narrow"}),
    ),
    "rounding-groups": Group(
        "round-to-nearest: group_size, 4 bits",
        LM,
        rtn(bits=4, range="mse"),
        ({}, {"group_size": 64}, {"group_size": 128}),
    ),
    **{
        f"gptq-range-{bits}": Group(
            f"gptq: range, {bits} bits", LM, grid("gptq", bits=bits), RANGES
        )
        for bits in (2, 3, 4)
    },
    **{
        f"gptq-range-{bits}-{name}": Group(
            f"gptq: range, {bits} bits, {words}", LM, grid("gptq", bits=bits) | config, RANGES
        )
        for bits in (2, 3, 4)
        for name, words, config in (
            ("128", "groups of 128", {"group_size": 128}),
            ("asymmetric", "asymmetric", {"scheme": "asymmetric"}),
            ("moving", "groups not static", {"static_groups": False}),
        )
    },
    "gptq-order-3": Group(
        "gptq: activation_order, 3 bits",
        LM,
        grid("gptq", static_groups=True),
        ({"activation_order": True}, {"activation_order": False}),
    ),
    "gptq-order-4": Group(
        "gptq: activation_order, 4 bits",
        LM,
        grid("gptq", bits=4, static_groups=True),
        ({"activation_order": True}, {"activation_order": False}),
    ),
    "gptq-static": Group(
        "gptq: static_groups, 3 bits",
        LM,
        grid("gptq", activation_order=True),
        ({"static_groups": True}, {"static_groups": False}),
    ),
    "gptq-damping": Group(
        "gptq: damping, 3 bits",
        LM,
        grid("gptq", activation_order=True),
        ({"damping": 0.01}, {"damping": 0.05}, {"damping": 0.1}),
    ),
    "gptq-scheme": Group("gptq: scheme, 3 bits", LM, grid("gptq", activation_order=True), SCHEMES),
    "awq-scheme-3": Group("awq: scheme, 3 bits", LM, grid("awq"), SCHEMES[::-1]),
    "awq-scheme-4": Group("awq: scheme, 4 bits", LM, grid("awq", bits=4), SCHEMES[::-1]),
    "awq-clip": Group(
        "awq: clip, 3 bits", LM, grid("awq", scheme="asymmetric"), ({"clip": True}, {"clip": False})
    ),
    "hqq-axis": Group(
        "hqq: axis, 4 bits",
        LM,
        {"technique": "hqq", "bits": 4, "group_size": 64},
        ({"axis": "row"}, {"axis": "column"}),
    ),
    "activations-observer": Group(
        "activations: observer and mode",
        LM,
        {"technique": "activations"} | ACTIVATIONS,
        (
            *OBSERVERS,
            {"observer": "moving-average"},
            {"observer": "percentile"},
            {"observer": "entropy"},
            {"mode": "dynamic"},
            {"mode": "dynamic", "scheme": "symmetric"},
        ),
    ),
    "activations-classifier": Group(
        "activations: observer and mode",
        CLASSIFIER,
        {"technique": "activations"} | ACTIVATIONS,
        (*OBSERVERS, {"mode": "dynamic"}),
    ),
    "activations-cnn": Group(
        "activations: observer and mode",
        CNN,
        {"technique": "activations"} | ACTIVATIONS,
        (*OBSERVERS, {"mode": "dynamic"}),
    ),
    "smoothquant": Group(
        "smoothquant: alpha",
        LM,
        {"technique": "smoothquant"} | ACTIVATIONS,
        (
            {"alpha": 0.5},
            {"alpha": 0.8},
            {"alpha": 0.5, "automatic": True},
            {"alpha": 0.5, "mode": "dynamic"},
        ),
    ),
    "smoothquant-observer": Group(
        "smoothquant: observer", LM, {"technique": "smoothquant"} | ACTIVATIONS, OBSERVERS
    ),
    "smoothquant-observer-classifier": Group(
        "smoothquant: observer", CLASSIFIER, {"technique": "smoothquant"} | ACTIVATIONS, OBSERVERS
    ),
    "mixed-range": Group(
        "mixed-precision: range, 3.5 bits",
        LM,
        {"technique": "mixed-precision", "budget": 3.5, "scheme": "symmetric"},
        RANGES,
    ),
    "mixed-damage": Group(
        "mixed-precision: sensitivity, 3.5 bits",
        LM,
        {"technique": "mixed-precision", "budget": 3.5, "range": "mse"},
        ({"sensitivity": "quantize-one"}, {"sensitivity": "restore-one"}),
    ),
    "nf4-double": Group(
        "bitsandbytes: double_quantization",
        LM,
        {"technique": "bitsandbytes", "format": "nf4"},
        ({"double_quantization": False}, {"double_quantization": True}, {"format": "fp4"}),
    ),
    "log-steps": Group(
        "log: steps_per_octave, 4 bits",
        LM,
        {"technique": "log", "bits": 4},
        ({"steps_per_octave": 1}, {"steps_per_octave": 2}, {"steps_per_octave": 4}),
    ),
    "log-scales": Group(
        "log: scales, 4 bits",
        LM,
        {"technique": "log", "bits": 4, "steps_per_octave": 1},
        ({"scales": "power-of-two"}, {"scales": "free"}),
    ),
    "codebook": Group(
        "codebook: start and coding, 4 bits",
        LM,
        {"technique": "codebook", "bits": 4},
        (*STARTS, {"coding": "huffman"}),
    ),
    **{
        f"codebook-start-{bits}": Group(
            f"codebook: start, {bits} bits", LM, {"technique": "codebook", "bits": bits}, STARTS
        )
        for bits in (2, 3, 6, 8)
    },
    "codebook-start-classifier": Group(
        "codebook: start, 3 bits", CLASSIFIER, {"technique": "codebook", "bits": 3}, STARTS
    ),
    "codebook-start-cnn": Group(
        "codebook: start, 3 bits", CNN, {"technique": "codebook", "bits": 3}, STARTS
    ),
    "fp8-scale": Group(
        "float: scale, fp8-e4m3",
        LM,
        {"technique": "float", "format": "fp8-e4m3"},
        ({"scale": "channel"}, {"scale": "tensor"}, {"scale": "none"}),
    ),
    "wanda-scope": Group("wanda: scope, half removed", LM, pruning("wanda"), SCOPES),
    "magnitude-scope": Group("magnitude: scope, half removed", LM, pruning("magnitude"), SCOPES),
    "sparsegpt-scope": Group("sparsegpt: scope, half removed", LM, pruning("sparsegpt"), SCOPES),
    "sparsegpt-columns": Group(
        "sparsegpt: block_columns, half removed",
        LM,
        pruning("sparsegpt", scope="layer"),
        ({"block_columns": 128}, {"block_columns": 32}, {"block_columns": 512}),
    ),
    "obd-scope": Group(
        "optimal-brain-damage: scope, half removed", LM, pruning("optimal-brain-damage"), SCOPES
    ),
    "taylor-scope": Group("taylor: scope, half removed", LM, pruning("taylor"), SCOPES),
    "wanda-scope-classifier": Group(
        "wanda: scope, half removed", CLASSIFIER, pruning("wanda"), SCOPES[:2]
    ),
    "structured-score": Group(
        "structured: score, a quarter of the neurons",
        LM,
        {"technique": "structured", "what": "neurons", "share": 0.25},
        SCORES,
    ),
    "structured-heads": Group(
        "structured: score, a quarter of the heads",
        LM,
        {"technique": "structured", "what": "heads", "share": 0.25},
        SCORES,
    ),
    "structured-scope": Group(
        "structured: scope, a quarter of the neurons",
        LM,
        {"technique": "structured", "what": "neurons", "share": 0.25, "score": "activations"},
        ({"scope": "layer"}, {"scope": "global"}),
    ),
    "structured-cnn": Group(
        "structured: score, a tenth of the channels",
        CNN,
        {"technique": "structured", "share": 0.1},
        SCORES,
    ),
    "structured-classifier": Group(
        "structured: score, a quarter of the neurons",
        CLASSIFIER,
        {"technique": "structured", "what": "neurons", "share": 0.25},
        SCORES,
    ),
    "svd-whitening": Group(
        "svd: whitening, a fifth removed",
        LM,
        {"technique": "svd", "kept": 0.8},
        (
            {"whitening": "svd-llm"},
            {"whitening": "none"},
            {"whitening": "asvd"},
            {"whitening": "fisher"},
        ),
    ),
    "svd-scope-20": Group("svd: scope, a fifth removed", LM, SVD | {"kept": 0.8}, SVD_SCOPES),
    "svd-scope-60": Group("svd: scope, three fifths removed", LM, SVD | {"kept": 0.4}, SVD_SCOPES),
    "svd-scope-classifier": Group(
        "svd: scope, three fifths removed", CLASSIFIER, SVD | {"kept": 0.4}, SVD_SCOPES
    ),
    **{
        f"svd-scope-{whitening}": Group(
            f"svd: scope, a fifth removed, {whitening}",
            LM,
            SVD | {"kept": 0.8, "whitening": whitening},
            SVD_SCOPES,
        )
        for whitening in ("none", "asvd", "fisher")
    },
    "svd-scope-none-60": Group(
        "svd: scope, three fifths removed, none",
        LM,
        SVD | {"kept": 0.4, "whitening": "none"},
        SVD_SCOPES,
    ),
    "svd-scope-cnn": Group(
        "svd: scope, three fifths removed", CNN, SVD | {"kept": 0.4}, SVD_SCOPES
    ),
    "svd-scope-energy": Group(
        "svd: scope, nine tenths of the energy",
        LM,
        SVD | {"by": "energy", "energy": 0.9},
        SVD_SCOPES,
    ),
    "correction-order": Group(
        "low-rank-correction: order, 3 bits, rank 8",
        LM,
        {"technique": "low-rank-correction", "bits": 3, "rank": 8},
        (*ORDERS, {"order": "low-rank-first", "whitening": "none"}),
    ),
    **{
        f"correction-order-{bits}-{rank}": Group(
            f"low-rank-correction: order, {bits} bits, rank {rank}",
            LM,
            {"technique": "low-rank-correction", "bits": bits, "rank": rank},
            ORDERS,
        )
        for bits, rank in ((2, 16), (3, 32), (4, 8))
    },
    "qat-teacher": Group("qat: distill_weight, 3 bits, 60 steps", LM, QAT, TAUGHT),
    "qat-scales": Group(
        "qat: learn_scales, 3 bits, 60 steps",
        LM,
        QAT,
        ({"learn_scales": False}, {"learn_scales": True}),
    ),
    "qat-teacher-cnn": Group(
        "qat: distill_weight, 2 bits, 100 steps",
        CNN,
        QAT | {"bits": 2, "steps": 100, "batch": 32},
        TAUGHT,
    ),
    "bitnet-teacher": Group(
        "bitnet: distill_weight, 60 steps",
        LM,
        {"technique": "bitnet", "steps": 60, "batch": 8, "rate": 1e-3},
        (TAUGHT[0], TAUGHT[2]),
    ),
    "qat-teacher-classifier": Group(
        "qat: distill_weight, 2 bits, 60 steps", CLASSIFIER, QAT | {"bits": 2}, TAUGHT
    ),
    "lora-teacher": Group(
        "lora: distill_weight, after 2 bits, 60 steps",
        LM,
        {"technique": "lora", "steps": 60, "rate": 3e-3},
        ({"distill_weight": 0.0}, {"distill_weight": 1.0}),
    ),
    "gradual-regrow": Group(
        "gradual: regrow, 90 percent removed, 300 steps",
        CNN,
        {"technique": "gradual", "sparsity": 0.9, "steps": 300},
        ({"regrow": False}, {"regrow": True}, {"distill_weight": 0.5}, {"scope": "global"}),
    ),
}
BEFORE = {"lora": [rtn(bits=2)]}  # steps that come before a technique
