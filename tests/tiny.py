"""Two-block models with random weights, one for every architecture the engine speaks of, saved to a
folder in a moment.

Widths are ragged on purpose: 172 is divided by neither 32 nor 128.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 288  # 256 bytes, four special tokens, 28 pieces
SPECIAL = ("<pad>", "<s>", "</s>", "<mask>")
PAD, BOS, EOS, MASK = range(4)
SENTENCES = (
    "The weights of a layer are rounded to four bits and the scales are kept in sixteen.",
    "A pruned model is small only when the zeros are not stored.",
    "Measure the uncompressed model first, under the same protocol.",
)
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
LLAMA = {
    **TOKENS,
    "hidden_size": 48,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def llama(**overrides) -> PreTrainedModel:
    """Grouped-query attention, an output layer of its own."""
    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, "tie_word_embeddings": False, **overrides}))


def tied_llama(**overrides) -> PreTrainedModel:
    """Grouped-query attention; the output layer is the embedding."""
    return llama(**{"tie_word_embeddings": True, **overrides})


def qwen2(**overrides) -> PreTrainedModel:
    """A Llama whose attention inputs have biases."""
    return Qwen2ForCausalLM(Qwen2Config(**{**LLAMA, "tie_word_embeddings": False, **overrides}))


def gpt2(**overrides) -> PreTrainedModel:
    """Conv1D layers, whose weights lie transposed; the output layer is the embedding."""
    shape = {"n_embd": 48, "n_inner": 172, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return GPT2LMHeadModel(GPT2Config(**{**TOKENS, **shape, **overrides}))


def opt(**overrides) -> PreTrainedModel:
    """Biases everywhere, learned positions; the output layer is the embedding."""
    shape = {
        "hidden_size": 48,
        "word_embed_proj_dim": 48,
        "ffn_dim": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return OPTForCausalLM(
        OPTConfig(**{**TOKENS, **shape, "max_position_embeddings": 128, **overrides})
    )


def bert(**overrides) -> PreTrainedModel:
    """A text classifier of three classes."""
    shape = {
        "hidden_size": 48,
        "intermediate_size": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return BertForSequenceClassification(
        BertConfig(
            **{**TOKENS, **shape, "max_position_embeddings": 128, "num_labels": 3, **overrides}
        )
    )


DISTILBERT = {
    **TOKENS,
    "dim": 48,
    "hidden_dim": 172,
    "n_layers": 3,
    "n_heads": 4,
    "max_position_embeddings": 128,
}


def distilbert(**overrides) -> PreTrainedModel:
    """A text classifier of three classes, in three blocks with names of their own."""
    return DistilBertForSequenceClassification(
        DistilBertConfig(**{**DISTILBERT, "num_labels": 3, **overrides})
    )


def encoder(**overrides) -> PreTrainedModel:
    """A DistilBERT that fills in masked words, as distilbert-base-uncased does: no classifier."""
    return DistilBertForMaskedLM(DistilBertConfig(**{**DISTILBERT, **overrides}))


def resnet(**overrides) -> PreTrainedModel:
    """An image classifier of ten classes, for one gray channel; its batch norms have seen no
    data.
    """
    shape = {
        "num_channels": 1,
        "embedding_size": 8,
        "hidden_sizes": [12, 20],
        "depths": [1, 2],
        "layer_type": "basic",
    }
    return ResNetForImageClassification(ResNetConfig(**{**shape, "num_labels": 10, **overrides}))


def gemma(**overrides) -> PreTrainedModel:
    """An embedding that scales what it reads and is the output layer too."""
    return Gemma2ForCausalLM(Gemma2Config(**{**LLAMA, "head_dim": 12, **overrides}))


def mixtral(**overrides) -> PreTrainedModel:
    """Experts, whose weights are one tensor for all of a block."""
    return MixtralForCausalLM(MixtralConfig(**{**LLAMA, "num_local_experts": 2, **overrides}))


PICTURE = {"num_channels": 1, "image_size": 16, "num_labels": 10}


def vit(**overrides) -> PreTrainedModel:
    """An image classifier of linear layers; one convolution cuts the picture into patches."""
    shape = {
        "hidden_size": 48,
        "intermediate_size": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 4,
    }
    return ViTForImageClassification(ViTConfig(**{**PICTURE, **shape, **overrides}))


def mobilenet(**overrides) -> PreTrainedModel:
    """Depthwise convolutions, which look up their own stride."""
    return MobileNetV2ForImageClassification(
        MobileNetV2Config(**{**PICTURE, "depth_multiplier": 0.35, **overrides})
    )


def convnext(**overrides) -> PreTrainedModel:
    """Convolutions and linear layers by turns, its channels last."""
    shape = {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1], "patch_size": 2}
    return ConvNextForImageClassification(ConvNextConfig(**{**PICTURE, **shape, **overrides}))


def efficientnet(**overrides) -> PreTrainedModel:
    """Convolutions whose padding is a word, depthwise ones among them, and
    squeeze-and-excitation.
    """
    shape = {
        "width_coefficient": 0.25,
        "depth_coefficient": 0.25,
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "kernel_sizes": [3, 5],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 6],
        "depthwise_padding": [],
        "hidden_dim": 320,
        "dropout_rate": 0.0,
    }
    return EfficientNetForImageClassification(
        EfficientNetConfig(**{**PICTURE, **shape, **overrides})
    )


def falcon(**overrides) -> PreTrainedModel:
    """Linear layers of a class of its own; attention and feed-forward side by side, the output
    layer is the embedding.
    """
    shape = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_hidden_size": 172,
        "max_position_embeddings": 128,
    }
    return FalconForCausalLM(FalconConfig(**{**TOKENS, **shape, **overrides}))


def mamba(**overrides) -> PreTrainedModel:
    """No attention: a state space, and a depthwise convolution along the text in each block."""
    shape = {
        "hidden_size": 24,
        "state_size": 8,
        "num_hidden_layers": 2,
        "time_step_rank": 4,
        "use_mambapy": False,
    }
    return MambaForCausalLM(MambaConfig(**{**TOKENS, **shape, **overrides}))


def roberta(**overrides) -> PreTrainedModel:
    """A text classifier whose positions begin behind that of the padding, so it reads two tokens
    fewer than it has positions.
    """
    shape = {
        "hidden_size": 48,
        "intermediate_size": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "pad_token_id": 1,
    }
    return RobertaForSequenceClassification(
        RobertaConfig(
            **{**TOKENS, **shape, "max_position_embeddings": 66, "num_labels": 3, **overrides}
        )
    )


ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": llama,
    "llama-tied": tied_llama,
    "qwen2": qwen2,
    "gpt2": gpt2,
    "opt": opt,
    "bert": bert,
    "resnet": resnet,
}
FURTHER: dict[str, Callable[..., PreTrainedModel]] = {  # for the tests that are about them
    "distilbert": distilbert,
    "encoder": encoder,
    "gemma": gemma,
    "mixtral": mixtral,
    "vit": vit,
    "mobilenet": mobilenet,
    "convnext": convnext,
    "efficientnet": efficientnet,
    "falcon": falcon,
    "roberta": roberta,
    "mamba": mamba,
}
LANGUAGE_MODELS = ("llama", "llama-tied", "qwen2", "gpt2", "opt")
WRITERS = (*LANGUAGE_MODELS, "gemma", "mixtral", "falcon", "mamba")
IMAGE_MODELS = ("resnet", "vit", "mobilenet", "convnext", "efficientnet")


@cache
def trained_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of VOCABULARY pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def tokenizer(architecture: str) -> PreTrainedTokenizerFast:
    """Plain for language models; a classifier's wraps each text in its begin and end tokens."""
    pieces = Tokenizer.from_str(trained_tokenizer().to_str())
    if architecture not in WRITERS:
        pieces.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=128, **names)


def tiny(
    architecture: str,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **config_overrides,
) -> Path:
    """The folder, now holding a random model of one of ARCHITECTURES or FURTHER and its tokenizer
    or image processor.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (ARCHITECTURES | FURTHER)[architecture](**config_overrides)
    model.to(dtype).eval().save_pretrained(folder)
    if architecture in IMAGE_MODELS:
        save_image_processor(folder)
    else:
        tokenizer(architecture).save_pretrained(folder)
    return folder


def save_image_processor(folder: Path) -> None:
    """Save an image processor that resizes to 16 x 16 and scales, which transformers finds without
    torchvision.
    """
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    mean = {"image_mean": [0.5], "image_std": [0.5]}
    ViTImageProcessorPil(size={"height": 16, "width": 16}, **mean).save_pretrained(folder)
