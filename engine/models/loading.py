"""Loading of a model, its tokenizer and image processor without a second copy of the weights in
memory.

``from_pretrained`` leaves CPU weights as views on memory-mapped files (private: writing to one
copies its pages and leaves the file unchanged), if the requested dtype is the stored one. Therefore
the stored dtype is requested, whatever config.json says.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import StrictDataclassFieldValidationError
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from engine.errors import Cancelled, PlainError
from engine.models.config_check import check_image_size
from engine.models.model_source import (
    INDEX,
    WEIGHTS,
    ModelSource,
    ids_outside_vocabulary,
    languages_without_default,
    read_header,
    read_json,
    resolve_model,
)
from engine.models.shared_tensors import aliases
from engine.models.size_limits import within_stored_size
from engine.models.unfused_experts import unfuse_experts

__all__ = [
    "ModelSource",
    "check_finite",
    "image_processor_of",
    "load_pretrained",
    "meta_model",
    "resolve_model",
    "tokenizer_of",
    "untrained_model",
]

MODELS = {
    "language-modeling": AutoModelForCausalLM,
    "masked-language-modeling": AutoModelForMaskedLM,
    "text-classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
OUT_OF_MEMORY = ("allocate memory", "not enough memory")  # torch's message for a full CPU memory
# transformers' message for a missing package
PACKAGE = re.compile(r"requires the (\S+) library")
ROTARY = r"rotary_emb\.inv_freq"  # computed buffers that older files store
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
huggingface_hub.logging.set_verbosity_error()


def load_pretrained(folder: ModelSource, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """The model in its stored dtype, in eval mode and without gradients; its weights are views on
    the files. With another ``config`` of fewer blocks, it has the first ones. The head of an
    encoder without one is initialized by torch's seed.
    """
    return load_pretrained_with_unused(folder, config)[0]


def load_pretrained_with_unused(
    folder: ModelSource, config: PreTrainedConfig | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """Like ``load_pretrained``, with the names of tensors in the files that the model
    does not use.
    """
    if folder.packed:
        raise PlainError(
            f"{folder} is compressed already, by this engine; start from the model it was "
            "made from."
        )
    with explain_load_errors(folder, f"{folder} cannot be built"), within_stored_size(folder):
        model, found = class_and_source(folder, config)(
            config=config or config_of(folder),
            dtype=getattr(torch, folder.dtype),
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **LOCAL,
        )
    missing = [
        name
        for name in found["missing_keys"]
        if not (folder.without_head and is_head_tensor(name, model))
    ]
    check_missing_weights(folder, missing, found["mismatched_keys"])
    # not among the unexpected keys
    ignored = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()), ROTARY]
    used = model.state_dict().keys()
    unused = [
        name
        for name in file_tensor_names(folder)
        if any(re.search(pattern, name) for pattern in ignored)
        and used.isdisjoint(aliases(name, model))
    ]
    return prepare_for_inference(model), [*found["unexpected_keys"], *unused]


def class_and_source(folder: ModelSource, config: PreTrainedConfig | None) -> Callable[..., Any]:
    """``from_pretrained`` of a class and its source: the folder, or the tensors of shards without
    an index, which transformers cannot find.
    """
    if any((folder.path / name).is_file() for name in (WEIGHTS, INDEX)):
        return partial(model_class(folder).from_pretrained, folder.path, use_safetensors=True)
    return partial(
        type(meta_model(folder, config)).from_pretrained,
        None,
        state_dict=dict(file_tensors(folder)),
    )


def model_class(folder: ModelSource) -> Any:
    """Return the transformers class that opens a model for its task."""
    return AutoModelForMultimodalLM if folder.multimodal else MODELS[folder.kind]


def is_head_tensor(name: str, model: PreTrainedModel) -> bool:
    """Return True if a tensor belongs to a classifier's head."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def meta_model(folder: ModelSource, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """Model on the meta device; computed buffers (rotary angles) have values. ``config`` may differ
    from that of its file.
    """
    with explain_load_errors(folder, f"{folder} cannot be built"), within_stored_size(folder):
        with torch.device("meta"):
            model = model_class(folder).from_config(
                config or config_of(folder),
                dtype=getattr(torch, folder.dtype),
                trust_remote_code=False,
            )
        compute_buffers(model)
    return prepare_for_inference(model)


def untrained_model(folder: ModelSource) -> PreTrainedModel:
    """Model with the architecture's random initial weights in float32, determined by
    torch's seed.
    """
    with explain_load_errors(folder, f"{folder} cannot be built"), within_stored_size(folder):
        return prepare_for_inference(
            model_class(folder).from_config(
                config_of(folder), dtype=torch.float32, trust_remote_code=False
            )
        )


def compute_buffers(model: PreTrainedModel) -> None:
    """Compute the buffers that no file contains."""
    for name, buffer in list(model.named_non_persistent_buffers()):
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._buffers[attribute] = torch.empty_like(buffer, device="cpu")
    for tensor in model.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True  # tells transformers not to initialize it randomly
    model.initialize_weights()


def prepare_for_inference(model: PreTrainedModel) -> PreTrainedModel:
    if model.can_generate():
        drop_foreign_ids(model.generation_config, model.config.get_text_config().vocab_size)
    unfuse_experts(model)
    return model.eval().requires_grad_(False)


def config_of(folder: ModelSource) -> PreTrainedConfig:
    """Configuration without special tokens outside the vocabulary (the padding row of an embedding
    must exist).
    """
    with explain_load_errors(folder, f"The config.json of {folder} cannot be used"):
        config = AutoConfig.from_pretrained(folder.path, **LOCAL)
    text = config.get_text_config()
    drop_foreign_ids(text, getattr(text, "vocab_size", None))
    if languages := languages_without_default(vars(config)):
        config.default_language = languages[0]
    if folder.kind == "text-classification" and getattr(text, "pad_token_id", None) is None:
        # a classifier must know which tokens are padding
        text.pad_token_id = tokenizer_of(folder).pad_token_id
    return config


def changed_config(folder: ModelSource, fields: dict[str, Any]) -> PreTrainedConfig:
    """Configuration with changed fields, each under this architecture's name."""
    config = config_of(folder)
    set_fields(config, fields)
    return config


def set_fields(config: PreTrainedConfig, fields: dict[str, Any]) -> None:
    """Change fields of a configuration, or of its language model's in a multimodal one."""
    text = config.get_text_config()
    for name, value in fields.items():
        setattr(text, text.attribute_map.get(name, name), value)


def drop_foreign_ids(config: object, vocabulary: int | None) -> None:
    named = {key: value for key, value in vars(config).items() if key.endswith("_token_id")}
    for key, foreign in ids_outside_vocabulary({**named, "vocab_size": vocabulary}).items():
        valid = [i for i in named[key] if i not in foreign] if isinstance(named[key], list) else []
        try:
            setattr(config, key, valid or None)
        except StrictDataclassFieldValidationError:  # of a configuration that accepts numbers only
            setattr(config, key, 0)


def check_missing_weights(
    folder: ModelSource,
    missing: Iterable[str],
    mismatched: Iterable[tuple[str, torch.Size, torch.Size]],
) -> None:
    """Check that the files contain every weight of the model.

    Raises PlainError for missing or mismatched weights, which would be initialized randomly.
    """
    if missing := sorted(missing):
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PlainError(
            f"{folder} lacks {missing[0]}{others}, which a {folder.architecture} needs; "
            "download it again or choose another model."
        )
    for name, stored, expected in sorted(mismatched):
        shapes = f"{tuple(stored)} in the file and {tuple(expected)} by config.json"
        raise PlainError(
            f"{name} of {folder} is {shapes}; they belong to different models; download the "
            "model again."
        )


def check_finite(model: ModelSource | torch.nn.Module) -> None:
    """Check that all weights are finite.

    Raises PlainError with the name of the first weight that contains a NaN or an infinity. Reads
    one tensor at a time.
    """
    if isinstance(model, ModelSource):
        with explain_load_errors(model, f"The weights of {model} cannot be read"):
            return check_finite_tensors(file_tensors(model), str(model))
    check_finite_tensors(model.state_dict().items(), "the model")


def check_finite_tensors(tensors: Iterable[tuple[str, torch.Tensor]], owner: str) -> None:
    non_finite = next((name for name, tensor in tensors if not is_finite(tensor)), None)
    if non_finite is not None:
        raise PlainError(
            f"The weight {non_finite} of {owner} holds NaN or infinite numbers; download it again "
            "or choose another model."
        )


def file_tensors(folder: ModelSource) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of everything in the weight files; a value is a view on its file."""
    for file in folder.files:
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118, a safetensors handle is not iterable
                yield name, stream.get_tensor(name)


def file_tensor_names(folder: ModelSource) -> list[str]:
    return [name for file in folder.files for name in read_header(file, str(folder))]


def is_finite(tensor: torch.Tensor) -> bool:
    """True for all integers; the extremes of a tensor with a NaN are NaN."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # torch finds no extremes of 8-bit numbers
    values = tensor.float() if tensor.itemsize == 1 else tensor
    return all(extreme.isfinite() for extreme in values.aminmax())


def tokenizer_of(folder: ModelSource) -> Any:
    """Tokenizer with a padding token that returns only ids for which the model has embeddings."""
    if not any(True for pattern in VOCABULARIES for _ in folder.path.glob(pattern)):
        raise PlainError(
            f"{folder} has no tokenizer ({', '.join(VOCABULARIES)}); add its files or choose "
            "a model that has one."
        )
    with explain_load_errors(folder, f"The tokenizer of {folder} cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(folder.path, **LOCAL)
        vocabulary = AutoConfig.from_pretrained(folder.path, **LOCAL).get_text_config().vocab_size
    drop_excess_tokens(tokenizer, vocabulary, folder)
    check_tokenizer(tokenizer, vocabulary, folder)
    if tokenizer.pad_token_id is None or not 0 <= tokenizer.pad_token_id < vocabulary:
        tokenizer.pad_token = next(
            (
                token
                for token in (tokenizer.eos_token, tokenizer.unk_token)
                if token in tokenizer.get_vocab()
            ),
            tokenizer.convert_ids_to_tokens(0),
        )
    return tokenizer


def check_tokenizer(tokenizer: Any, vocabulary: int, folder: ModelSource) -> None:
    """Check a tokenizer on a short text.

    Raises PlainError if it cannot be used, such as one of another class than its vocabulary.
    """
    advice = "use the tokenizer that the model was trained with"
    if not (folder.path / "tokenizer_config.json").is_file():
        advice = "add tokenizer_config.json, which gives the kind of tokenizer"
    try:
        ids, _ = tokenizer("A text.")["input_ids"], tokenizer.pad_token_id
    # a missing unknown token raises RecursionError, or Exception in tokenizers
    except Exception as error:
        reason = (
            "it has no unknown token"
            if isinstance(error, RecursionError)
            else error_reason(error, folder)
        )
        raise PlainError(
            f"The tokenizer of {folder} cannot tokenize text ({reason}); {advice}."
        ) from None
    if ids and max(ids) >= vocabulary:
        raise PlainError(
            f"The tokenizer of {folder} returns token {max(ids):,}, and the model has "
            f"{vocabulary:,} embeddings; {advice}."
        )


def drop_excess_tokens(tokenizer: Any, vocabulary: int, folder: ModelSource) -> None:
    """Remove added tokens beyond the embedding, such as the image token of a text model. Raises
    PlainError for other tokens beyond it.
    """
    added = tokenizer.added_tokens_decoder
    beyond = [i for i in tokenizer.get_vocab().values() if i >= vocabulary]
    if any(i not in added for i in beyond) or (beyond and not tokenizer.is_fast):
        size = max(beyond) + 1
        raise PlainError(
            f"The tokenizer of {folder} has {size:,} tokens and the model embeds "
            f"{vocabulary:,}; use the one it was trained with."
        )
    if beyond:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["added_tokens"] = [
            token for token in state["added_tokens"] if token["id"] < vocabulary
        ]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def image_processor_of(folder: ModelSource) -> Any:
    """Image processor of the model, with PIL instead of torchvision."""
    if not (folder.path / "preprocessor_config.json").is_file():
        raise PlainError(
            f"{folder} has no preprocessor_config.json, so images cannot be preprocessed; "
            "add the file."
        )
    check_image_size(read_json(folder.path / "preprocessor_config.json", str(folder)), str(folder))
    with explain_load_errors(folder, f"The image processor of {folder} cannot be read"):
        return AutoImageProcessor.from_pretrained(folder.path, backend="pil", **LOCAL)


@contextmanager
def explain_load_errors(folder: ModelSource, failure: str) -> Iterator[None]:
    """Turn any error of a library into one sentence, and hide its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (PlainError, Cancelled, MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:
        package = PACKAGE.search(str(error))
        if package is None:
            raise PlainError(
                f"{failure} ({error_reason(error, folder)}); choose another model."
            ) from None
        raise PlainError(
            f"{folder} needs the Python package {package[1]}, which is not installed here; "
            "install it or choose another model."
        ) from None
    except Exception as error:
        if isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise PlainError(
            f"{failure} ({error_reason(error, folder)}); download it again or choose another model."
        ) from None


def error_reason(error: Exception, folder: ModelSource) -> str:
    """The error's message on one line, without local paths."""
    text = " ".join(str(error).replace(str(folder.path), folder.reference).split())
    return f"{type(error).__name__}: {text[:120]}"
