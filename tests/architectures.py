"""Tiny models of further architectures: fused and grouped attention, gated and pointwise layers,
masked language models, and models that also read images.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from tests import tiny

TOKENS, LLAMA = tiny.TOKENS, {**tiny.LLAMA, "tie_word_embeddings": False}
SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
# as GPT-2 names them
NAMED = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 172, "n_positions": 128}
BERT = {**TOKENS, **SHAPE, "max_position_embeddings": 128, "num_labels": 3}
IMAGE = {"num_channels": 1, "image_size": 16, "num_labels": 10}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def model_builder(family: str, head: str, **fields) -> Callable[[], PreTrainedModel]:
    """Return a function that builds a random model of ``family``; ``head`` is the end of its class
    name, such as ForCausalLM.
    """

    def build() -> PreTrainedModel:
        return getattr(transformers, f"{family}{head}")(
            getattr(transformers, f"{family}Config")(**fields)
        )

    return build


def writer(family: str, **fields) -> Callable[[], PreTrainedModel]:
    return model_builder(family, "ForCausalLM", **fields)


def classifier(family: str, **fields) -> Callable[[], PreTrainedModel]:
    return model_builder(family, "ForSequenceClassification", **{**BERT, **fields})


def image_model(family: str, **fields) -> Callable[[], PreTrainedModel]:
    return model_builder(family, "ForImageClassification", **{**IMAGE, **fields})


WRITERS = {
    "gpt-neox": writer("GPTNeoX", **TOKENS, **SHAPE, max_position_embeddings=128),
    "phi3": writer("Phi3", **LLAMA),
    "bloom": writer("Bloom", **TOKENS, hidden_size=48, n_layer=2, n_head=4),
    "mpt": writer("Mpt", **TOKENS, d_model=48, n_layers=2, n_heads=4, max_seq_len=128),
    "gptj": writer("GPTJ", **TOKENS, **NAMED, rotary_dim=4),
    "gpt-bigcode": writer("GPTBigCode", **TOKENS, **NAMED),
    "gpt-bigcode-all-keys": writer("GPTBigCode", **TOKENS, **NAMED, multi_query=False),
    "qwen3": writer("Qwen3", **LLAMA, head_dim=12),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(**LLAMA, head_dim=12)
    ),
    "starcoder2": writer("Starcoder2", **LLAMA),
    "glm": writer("Glm", **LLAMA, head_dim=12),
    "codegen": writer("CodeGen", **TOKENS, **NAMED, rotary_dim=4),
    "olmo2": writer("Olmo2", **LLAMA),
    "deepseek-v3": writer(
        "DeepseekV3",
        **{**LLAMA, "num_key_value_heads": 4},
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        first_k_dense_replace=2,
    ),
}
WRITERS |= {
    # norms without weights, so no parameter stands outside its layers
    "olmo": writer("Olmo", **LLAMA),
    # a norm for each head
    "stablelm": writer("StableLm", **LLAMA, qk_layernorm=True, partial_rotary_factor=0.5),
}
CLASSIFIERS = {
    "modernbert": classifier("ModernBert", cls_token_id=1, sep_token_id=2),
    "electra": classifier("Electra", embedding_size=24),
    "deberta-v2": classifier(
        "DebertaV2",
        relative_attention=True,
        pos_att_type="p2c|c2p",
        share_att_key=True,
        position_buckets=16,
    ),
    "albert": classifier("Albert", embedding_size=24),
    "mpnet": classifier("MPNet"),
}
IMAGE_MODELS = {
    "deit": image_model("DeiT", **SHAPE, patch_size=4),
    "swin": image_model(
        "Swin", patch_size=2, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=2
    ),
    "swinv2": image_model(
        "Swinv2", patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=2
    ),
    "beit": image_model("Beit", **SHAPE, patch_size=4, use_relative_position_bias=True),
    "convnext": image_model(
        "ConvNext",
        layer_scale_init_value=1.0,
        num_stages=2,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        patch_size=2,
    ),
    "convnextv2": image_model(
        "ConvNextV2", num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], patch_size=2
    ),
}
CONVOLUTIONAL = {
    "mobilenetv2": image_model("MobileNetV2", depth_multiplier=0.35),
    "mobilenetv1": image_model("MobileNetV1", depth_multiplier=0.25),
    "regnet": model_builder(
        "RegNet",
        "ForImageClassification",
        num_channels=1,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 2],
        groups_width=4,
        num_labels=10,
    ),
}
MASKED = {
    "bert": model_builder("Bert", "ForMaskedLM", **BERT),
    "roberta": model_builder("Roberta", "ForMaskedLM", **BERT),
    "distilbert": lambda: tiny.encoder(),
    "modernbert": model_builder(
        "ModernBert", "ForMaskedLM", **BERT, cls_token_id=1, sep_token_id=2
    ),
    "electra": model_builder("Electra", "ForMaskedLM", **BERT, embedding_size=24),
    "deberta-v2": model_builder("DebertaV2", "ForMaskedLM", **BERT),
}
ROTARY = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10_000.0}
IMAGE_TOKENS = {
    "vision_start_token_id": 5,
    "vision_end_token_id": 6,
    "image_token_id": 8,
    "video_token_id": 9,
}
MULTIMODAL = {
    "gemma3": model_builder(
        "Gemma3",
        "ForConditionalGeneration",
        text_config={**tiny.LLAMA, "head_dim": 12},
        vision_config=VISION,
        mm_tokens_per_image=4,
        image_token_index=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "qwen2-vl": model_builder(
        "Qwen2VL",
        "ForConditionalGeneration",
        text_config={**LLAMA, "rope_parameters": ROTARY},
        vision_config={
            "embed_dim": 32,
            "hidden_size": 48,
            "depth": 3,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
        },
        **IMAGE_TOKENS,
    ),
    "llava": model_builder(
        "Llava",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "llama"},
        vision_config={**VISION, "model_type": "clip_vision_model", "projection_dim": 32},
        image_token_index=8,
    ),
}

GRID = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 48,
}
AUDIO = {"num_mel_bins": 8, "max_source_positions": 20}
WITH_CROSS_ATTENTION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_global_layers": 1,
    "attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "vision_output_dim": 64,
    "intermediate_layers_indices": [0],
    "max_num_tiles": 2,
    "supported_aspect_ratios": [[1, 1], [1, 2]],
}
FURTHER_MULTIMODAL = {
    "qwen2.5-vl": model_builder(
        "Qwen2_5_VL",
        "ForConditionalGeneration",
        text_config={**LLAMA, "rope_parameters": ROTARY},
        vision_config={**GRID, "window_size": 16, "fullatt_block_indexes": [1]},
        **IMAGE_TOKENS,
    ),
    "qwen3-vl": model_builder(
        "Qwen3VL",
        "ForConditionalGeneration",
        text_config={**LLAMA, "head_dim": 12, "rope_parameters": ROTARY},
        tie_word_embeddings=True,
        vision_config={**GRID, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        **IMAGE_TOKENS,
    ),
    "mistral3": model_builder(
        "Mistral3",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "mistral", "head_dim": 12},
        image_token_index=8,
        vision_config={**VISION, "model_type": "pixtral", "head_dim": 16},
    ),
    "paligemma": model_builder(
        "PaliGemma",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "gemma", "head_dim": 12},
        projection_dim=48,
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        image_token_index=8,
        hidden_size=48,
    ),
    "smolvlm": model_builder(
        "SmolVLM",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "llama"},
        vision_config=VISION,
        image_token_id=8,
        pad_token_id=0,
    ),
    "internvl": model_builder(
        "InternVL",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "qwen2"},
        image_token_id=8,
        tie_word_embeddings=False,
        vision_config={**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
    ),
    "mllama": model_builder(  # blocks of its decoder read the image, and no text reaches them
        "Mllama",
        "ForConditionalGeneration",
        vision_config=WITH_CROSS_ATTENTION,
        image_token_index=8,
        text_config={
            **LLAMA,
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
    "llama4": model_builder(
        "Llama4",
        "ForConditionalGeneration",
        image_token_index=8,
        text_config={
            **LLAMA,
            "intermediate_size": 20,
            "intermediate_size_mlp": 36,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
            "head_dim": 12,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "vision_output_dim": 48,
            "projector_input_dim": 48,
            "projector_output_dim": 48,
        },
    ),
    "llava-next": model_builder(
        "LlavaNext",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "llama"},
        image_token_index=8,
        image_seq_length=4,
        vision_config={**VISION, "model_type": "clip_vision_model", "projection_dim": 32},
        image_grid_pinpoints=[[16, 16]],
    ),
    "qwen2-audio": model_builder(
        "Qwen2Audio",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "qwen2"},
        audio_token_index=8,
        audio_config={
            **AUDIO,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "d_model": 32,
        },
    ),
    "voxtral": model_builder(
        "Voxtral",
        "ForConditionalGeneration",
        text_config={**LLAMA, "model_type": "llama", "head_dim": 12},
        audio_token_id=8,
        audio_config={
            **AUDIO,
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
    ),
}


def save_random_model(
    build: Callable[[], PreTrainedModel], folder: Path, tokens: str = "llama", seed: int = 0
) -> Path:
    """Save the random model that ``build`` returns, and return its folder; ``tokens`` names the
    tokenizer in ``tests.tiny``, "" for images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
    model.save_pretrained(folder)
    tiny.tokenizer(tokens).save_pretrained(folder) if tokens else tiny.save_image_processor(folder)
    return folder
