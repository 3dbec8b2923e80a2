"""Training of ``bundled:docs-lm``: a small Llama that writes Python documentation.

python -m engine.bundled.docs_lm --tokens 20000000 --checkpoint /tmp/docs-lm.pt
"""

import argparse
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.bundled.pretraining import Schedule, TrainingCurve, curve_table, train
from engine.evaluation.data.documents import Split, extract_documents, fingerprint, unique_documents

OUT = Path("assets/models/docs-lm")
CONTEXT, BATCH, VOCABULARY, END = 256, 16, 4096, "<|endoftext|>"
SEPARATOR = "\n\n\n"
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)


def document_texts(*splits: Split) -> list[str]:
    return [
        document.text
        for document in unique_documents(extract_documents())
        if document.split in splits
    ]


def trained_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of VOCABULARY pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=512,
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """All texts as one row of tokens, separated by three line feeds. (tokens,)"""
    pieces = tokenizer.backend_tokenizer.encode_batch(
        [text + SEPARATOR for text in texts], add_special_tokens=False
    )
    return torch.tensor([token for piece in pieces for token in piece.ids], dtype=torch.int32)


def training_batch(stream: torch.Tensor, step: int) -> torch.Tensor:
    """BATCH windows of CONTEXT tokens at positions determined by the step. (BATCH, CONTEXT)"""
    starts = torch.randint(
        len(stream) - CONTEXT, (BATCH,), generator=torch.Generator().manual_seed(step)
    )
    return torch.stack([stream[start : start + CONTEXT] for start in starts.tolist()]).long()


def language_modeling_loss(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens).logits
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: torch.Tensor, windows: int) -> float:
    """Mean token loss over the first non-overlapping windows of a held-out stream."""
    rows = stream[: windows * CONTEXT].view(-1, CONTEXT).long().split(BATCH)
    return sum(language_modeling_loss(model, row).item() * len(row) for row in rows) / sum(
        map(len, rows)
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=20_000_000)
    options.add_argument("--rate", type=float, default=2e-3)
    options.add_argument("--checkpoint", type=Path, default=Path("docs-lm.pt"))
    options.add_argument(
        "--compile", action="store_true", help="fuse the step (needs a C++ compiler)"
    )
    arguments = options.parse_args()
    torch.manual_seed(0)
    texts = document_texts("train", "unlabelled")
    tokenizer = trained_tokenizer(texts)
    stream, held_out = (
        token_stream(tokenizer, texts),
        token_stream(tokenizer, document_texts("evaluation")),
    )
    print(
        (
            f"{len(stream):,} training tokens, {len(held_out):,} held out, fingerprint "
            f"{fingerprint(texts)}"
        ),
        flush=True,
    )
    model = LlamaForCausalLM(CONFIG)
    step_loss = (
        torch.compile(language_modeling_loss) if arguments.compile else language_modeling_loss
    )
    schedule = Schedule(arguments.tokens // (BATCH * CONTEXT), arguments.rate)
    curve = train(
        model,
        lambda step: step_loss(model, training_batch(stream, step)),
        lambda: held_out_loss(model, held_out, 64),
        schedule,
        arguments.checkpoint,
    )
    final = held_out_loss(model.bfloat16().float(), held_out, len(held_out) // CONTEXT)
    model.bfloat16().save_pretrained(OUT)
    tokenizer.save_pretrained(OUT)
    (OUT / "README.md").write_text(
        model_card(arguments, model, curve, final, len(stream), fingerprint(texts))
    )


def model_card(
    arguments: argparse.Namespace,
    model: LlamaForCausalLM,
    curve: TrainingCurve,
    final: float,
    stream: int,
    data: str,
) -> str:
    parameters, flag = (
        sum(p.numel() for p in model.parameters()),
        " --compile" if arguments.compile else "",
    )
    return f"""# docs-lm

A causal language model of the Llama architecture ({CONFIG.num_hidden_layers} blocks,
{CONFIG.hidden_size} wide, {CONFIG.num_attention_heads} heads sharing {CONFIG.num_key_value_heads}
key/value heads, tied embeddings), {parameters:,} parameters, stored in bfloat16.

- **Data**: documentation strings of the packages pinned in `requirements.txt`, deduplicated, split
  by source file. {stream:,} training tokens, fingerprint `{data}`.
- **Tokenizer**: byte-level BPE, {VOCABULARY:,} pieces, trained on the same texts.
- **Command**: `python -m engine.bundled.docs_lm --tokens {arguments.tokens}
  --rate {arguments.rate}{flag}`, seed 0.
- **Tokens seen**: {arguments.tokens:,} ({arguments.tokens / stream:.1f} passes over the data).
- **Held-out perplexity**: **{math.exp(final):.2f}** on all of the evaluation split, windows of
  {CONTEXT} tokens (bfloat16 autocast).

{curve_table(curve)}

Good for seeing what compression does to a language model. Not good for anything that needs its
sentences to be true.
"""


if __name__ == "__main__":
    main()
