"""From a model's folder to its module, tokenizer and image processor, without ever holding the weights in memory twice.

``from_pretrained`` leaves CPU weights as views on the memory-mapped files (private: writing to one copies its pages and
leaves the file alone), as long as the dtype asked for is the stored one. That is why the stored dtype is asked for,
whatever config.json says.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import huggingface_hub
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from engine.errors import PlainError
from engine.work.folders import Folder, foreign_ids, resolve

__all__ = ["Folder", "check_finite", "image_processor_of", "load", "resolve", "skeleton", "tokenizer_of", "untrained"]

MODELS = {
    "language-modeling": AutoModelForCausalLM,
    "text-classification": AutoModelForSequenceClassification,
    "image-classification": AutoModelForImageClassification,
}
LOCAL = {"trust_remote_code": False, "local_files_only": True}
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
huggingface_hub.logging.set_verbosity_error()


def load(folder: Folder, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """The model in its stored dtype, in eval mode and without gradients; its weights are views on the files. By another ``config``, one with
    fewer blocks, the first of them. Of a bare encoder, the head is drawn; torch's seed decides.
    """
    if folder.packed:
        raise PlainError(f"{folder} is compressed already, by this engine; start from the model it was made from.")
    with told(folder, f"{folder} cannot be built"):
        model, found = MODELS[folder.kind].from_pretrained(
            folder.path, config=config or config_of(folder), dtype=getattr(torch, folder.dtype), use_safetensors=True,
            ignore_mismatched_sizes=True, output_loading_info=True, **LOCAL,
        )  # fmt: skip
    missing = [name for name in found["missing_keys"] if not (folder.bare and of_head(name, model))]
    refuse_gaps(folder, missing, found["mismatched_keys"])
    return at_rest(model)


def of_head(name: str, model: PreTrainedModel) -> bool:
    """Whether a tensor belongs to what a classifier has behind its encoder."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def skeleton(folder: Folder, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """The same module with everything a file would fill on the meta device; what is computed (rotary angles) is there.
    By another ``config``, one that its file does not say.
    """
    with told(folder, f"{folder} cannot be built"):
        with torch.device("meta"):
            model = MODELS[folder.kind].from_config(config or config_of(folder), dtype=getattr(torch, folder.dtype), trust_remote_code=False)
        compute_buffers(model)
    return at_rest(model)


def untrained(folder: Folder) -> PreTrainedModel:
    """The same module with random weights as the architecture draws them, in float32; torch's seed decides."""
    with told(folder, f"{folder} cannot be built"):
        return at_rest(MODELS[folder.kind].from_config(config_of(folder), dtype=torch.float32, trust_remote_code=False))


def compute_buffers(model: PreTrainedModel) -> None:
    """Give the buffers that no file holds their values."""
    for name, buffer in list(model.named_non_persistent_buffers()):
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._buffers[attribute] = torch.empty_like(buffer, device="cpu")
    for tensor in model.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True  # how transformers marks what it must not draw at random
    model.initialize_weights()


def at_rest(model: PreTrainedModel) -> PreTrainedModel:
    if model.can_generate():
        drop_foreign_ids(model.generation_config, model.config.get_text_config().vocab_size)
    model.set_experts_implementation("eager")  # torch's grouped product refuses bfloat16 rows that are not a multiple of 16 bytes wide
    return model.eval().requires_grad_(False)


def config_of(folder: Folder) -> PreTrainedConfig:
    """The configuration, rid of special tokens that the vocabulary does not hold (a layer's padding row must exist)."""
    with told(folder, f"The config.json of {folder} cannot be used"):
        config = AutoConfig.from_pretrained(folder.path, **LOCAL)
    text = config.get_text_config()
    drop_foreign_ids(text, getattr(text, "vocab_size", None))
    if folder.kind == "text-classification" and getattr(text, "pad_token_id", None) is None:
        text.pad_token_id = tokenizer_of(folder).pad_token_id  # a classifier must know which tokens to look past
    return config


def drop_foreign_ids(config: object, vocabulary: int | None) -> None:
    named = {key: value for key, value in vars(config).items() if key.endswith("_token_id")}
    for key, outside in foreign_ids({**named, "vocab_size": vocabulary}).items():
        kept = [i for i in named[key] if i not in outside] if isinstance(named[key], list) else []
        setattr(config, key, kept or None)


def refuse_gaps(folder: Folder, missing: Iterable[str], mismatched: Iterable[tuple[str, torch.Size, torch.Size]]) -> None:
    """Weights that a random draw would have filled."""
    if missing := sorted(missing):
        rest = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise PlainError(f"{folder} lacks {missing[0]}{rest}, which a {folder.architecture} needs; fetch it again or choose another model.")
    for name, stored, due in sorted(mismatched):
        shapes = f"{tuple(stored)} in the file and {tuple(due)} by config.json"
        raise PlainError(f"{name} of {folder} is {shapes}; the two belong to different models, fetch it again.")


def check_finite(subject: Folder | torch.nn.Module) -> None:
    """Raises PlainError with the name of the first weight that holds a NaN or an infinity. Looks at one tensor at a time."""
    if isinstance(subject, Folder):
        with told(subject, f"The weights of {subject} cannot be read"):
            return refuse_unfinite(tensors_in(subject), str(subject))
    refuse_unfinite(subject.state_dict().items(), "the model")


def refuse_unfinite(tensors: Iterable[tuple[str, torch.Tensor]], owner: str) -> None:
    bad = next((name for name, tensor in tensors if not finite(tensor)), None)
    if bad is not None:
        raise PlainError(f"The weight {bad} of {owner} holds NaN or infinite numbers; fetch it again or choose another model.")


def tensors_in(folder: Folder) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of everything in the weight files; a value is a view on its file."""
    for file in folder.files:
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118, a safetensors handle is not iterable
                yield name, stream.get_tensor(name)


def finite(tensor: torch.Tensor) -> bool:
    """True of every whole number; the extremes of a tensor with a NaN are NaN."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    whole = tensor.float() if tensor.itemsize == 1 else tensor  # torch finds no extremes of 8-bit numbers
    return all(extreme.isfinite() for extreme in whole.aminmax())


def tokenizer_of(folder: Folder):
    """The tokenizer, with a padding token, giving only ids that the model has embeddings for."""
    if not any(True for pattern in VOCABULARIES for _ in folder.path.glob(pattern)):
        raise PlainError(f"{folder} has no tokenizer ({', '.join(VOCABULARIES)}); add its files or choose a model that has one.")
    with told(folder, f"The tokenizer of {folder} cannot be read"):
        tokenizer = AutoTokenizer.from_pretrained(folder.path, **LOCAL)
        vocabulary = AutoConfig.from_pretrained(folder.path, **LOCAL).get_text_config().vocab_size
    confine(tokenizer, vocabulary, folder)
    if tokenizer.pad_token_id is None or not 0 <= tokenizer.pad_token_id < vocabulary:
        tokenizer.pad_token = next(
            (token for token in (tokenizer.eos_token, tokenizer.unk_token) if token in tokenizer.get_vocab()),
            tokenizer.convert_ids_to_tokens(0),
        )
    return tokenizer


def confine(tokenizer, vocabulary: int, folder: Folder) -> None:
    """Forget added tokens beyond the embedding, such as a text model's picture token. Raises PlainError if others are there."""
    added = tokenizer.added_tokens_decoder
    beyond = [i for i in tokenizer.get_vocab().values() if i >= vocabulary]
    if any(i not in added for i in beyond) or (beyond and not tokenizer.is_fast):
        most = max(beyond) + 1
        raise PlainError(f"The tokenizer of {folder} has {most:,} tokens and the model embeds {vocabulary:,}; use the one it was trained with.")
    if beyond:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < vocabulary]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def image_processor_of(folder: Folder):
    """What turns pictures into the model's input, with PIL; torchvision is not needed."""
    if not (folder.path / "preprocessor_config.json").is_file():
        raise PlainError(f"{folder} has no preprocessor_config.json, so nobody knows how it wants its pictures; add the file.")
    with told(folder, f"The image processor of {folder} cannot be read"):
        return AutoImageProcessor.from_pretrained(folder.path, backend="pil", **LOCAL)


@contextmanager
def told(folder: Folder, failure: str) -> Iterator[None]:
    """Whatever goes wrong inside a library becomes one sentence; its warnings stay unsaid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PlainError:
        raise
    except Exception as error:
        raise PlainError(f"{failure} ({reason(error, folder)}); fetch it again or choose another model.") from None


def reason(error: Exception, folder: Folder) -> str:
    """The error's own words, in one line without our paths."""
    text = " ".join(str(error).replace(str(folder.path), folder.reference).split())
    return f"{type(error).__name__}: {text[:120]}"
