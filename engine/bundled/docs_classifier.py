"""Training of ``bundled:docs-classifier``, a small BERT that predicts which library a documentation
text is from. It is pretrained as a masked language model on the same corpus, because a classifier
from scratch overfits, and then trained to classify.

python -m engine.bundled.docs_classifier --tokens 5500000 --epochs 3 --checkpoint
/tmp/docs-classifier.pt
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from engine.bundled.pretraining import Schedule, TrainingCurve, curve_table, train
from engine.evaluation.data.documents import (
    Document,
    Split,
    extract_documents,
    fingerprint,
    unique_documents,
)
from engine.evaluation.data.passages import LABELS, Passage, labeled_passages, mask_giveaways

OUT = Path("assets/models/docs-classifier")
WINDOW, BATCH, VOCABULARY = 192, 24, 4096
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, CLS, SEP, MASK = 0, 2, 3, 4
MASKED_SHARE = 0.2
CONFIG = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    intermediate_size=1024,
    max_position_embeddings=WINDOW,
    type_vocab_size=1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    pad_token_id=PAD,
    num_labels=len(LABELS),
    id2label=dict(enumerate(LABELS)),
    label2id={label: index for index, label in enumerate(LABELS)},
)


def trained_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A lower-case byte-level BPE tokenizer of VOCABULARY pieces. (WordPiece comes out differently
    each time it is trained.)
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    names = dict(
        zip(
            ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=WINDOW, **names)


def token_stream(tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> torch.Tensor:
    """All documents, giveaways masked, as one row of tokens with [SEP] between two.  (tokens,)"""
    pieces = tokenizer.backend_tokenizer.encode_batch(
        [mask_giveaways(document.text) for document in documents], add_special_tokens=False
    )
    return torch.tensor(
        [token for piece in pieces for token in (*piece.ids, SEP)], dtype=torch.int32
    )


def masked_batch(stream: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows with a share of tokens hidden, and the hidden tokens (-100 elsewhere).  Both (BATCH,
    WINDOW)
    """
    draw = torch.Generator().manual_seed(step)
    starts = torch.randint(len(stream) - WINDOW, (BATCH,), generator=draw)
    tokens = torch.stack([stream[start : start + WINDOW] for start in starts.tolist()]).long()
    tokens[:, 0] = CLS
    chance = torch.rand(tokens.shape, generator=draw)
    hidden = (chance < MASKED_SHARE) & (tokens > MASK)
    shown = tokens.masked_fill(hidden & (chance < 0.8 * MASKED_SHARE), MASK)
    wrong = hidden & (chance > 0.9 * MASKED_SHARE)
    shown[wrong] = torch.randint(5, VOCABULARY, (int(wrong.sum()),), generator=draw)
    return shown, tokens.masked_fill(~hidden, -100)


def half_precision() -> torch.autocast:
    """bfloat16 where the processor has instructions for it; elsewhere float32 is faster."""
    return torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def masked_word_loss(
    model: BertForMaskedLM, shown: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the masked tokens. The wide output layer runs on these positions only."""
    with half_precision():
        states = model.bert(shown).last_hidden_state[hidden >= 0]
        logits = model.cls(states)
    return cross_entropy(logits.float(), hidden[hidden >= 0])


@torch.no_grad()
def initialize_attention(model: BertForMaskedLM, width: int = 64, blocks: int = 4) -> None:
    """Initialize positions as sinusoids in the last ``width`` dimensions and heads that attend to
    the next, the previous and nearby tokens. With random positions, this small model predicts word
    frequencies for a thousand steps before it learns to use neighboring tokens.
    """
    embeddings, frequency = (
        model.bert.embeddings,
        2 * math.pi / torch.logspace(math.log10(4), math.log10(512), width // 2),
    )
    angles = torch.arange(CONFIG.max_position_embeddings)[:, None] * frequency
    embeddings.position_embeddings.weight.zero_()[:, -width:] = 0.06 * torch.cat(
        [angles.cos(), angles.sin()], dim=1
    )
    for layer in model.bert.encoder.layer[:blocks]:
        attention = layer.attention.self
        for head, offset in enumerate((-1, 1, 0)):
            rows, cos, sin = (
                slice(head * width, (head + 1) * width),
                (offset * frequency).cos().diag(),
                (offset * frequency).sin().diag(),
            )
            attention.query.weight[rows, -width:] += 0.6 * torch.cat(
                [torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)]
            )
            attention.key.weight[rows, -width:] += 0.6 * torch.eye(width)


@dataclass(frozen=True)
class TokenizedPassages:
    tokens: torch.Tensor  # (texts, WINDOW)
    labels: torch.Tensor  # (texts,)

    @classmethod
    def tokenize(
        cls, tokenizer: PreTrainedTokenizerFast, chosen: list[Passage]
    ) -> "TokenizedPassages":
        rows = tokenizer(
            [p.text for p in chosen],
            padding="max_length",
            truncation=True,
            max_length=WINDOW,
            return_tensors="pt",
        )
        return cls(rows["input_ids"], torch.tensor([p.label for p in chosen]))


def model_logits(model: BertForSequenceClassification, tokens: torch.Tensor) -> torch.Tensor:
    # skip columns that are padding in all rows
    tokens = tokens[:, : int((tokens != PAD).sum(1).max())]
    with half_precision():
        return model(input_ids=tokens, attention_mask=tokens != PAD).logits.float()


@torch.no_grad()
def evaluation_logits(model: BertForSequenceClassification, tokens: torch.Tensor) -> torch.Tensor:
    model.eval()
    rows = torch.cat([model_logits(model, part) for part in tokens.split(100)])
    model.train()
    return rows


def fine_tuning_batch(data: TokenizedPassages, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """BATCH texts of similar length. The order is a new shuffle each epoch, determined by the step.
    A tenth of the words is masked.
    """
    per_epoch = len(data.labels) // BATCH
    rows = length_grouped_batches((data.tokens != PAD).sum(1), seed=step // per_epoch)[
        step % per_epoch
    ]
    tokens = data.tokens[rows]
    hidden = (torch.rand(tokens.shape, generator=torch.Generator().manual_seed(step)) < 0.1) & (
        tokens > MASK
    )
    return tokens.masked_fill(hidden, MASK), data.labels[rows]


def length_grouped_batches(lengths: torch.Tensor, seed: int, pool: int = 16) -> torch.Tensor:
    """Shuffled rows, in pools of this many batches sorted by length, the batches shuffled again.
    (batches, BATCH)
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=draw)[: len(lengths) // BATCH * BATCH]
    sorted_pools = [part[lengths[part].argsort(stable=True)] for part in order.split(pool * BATCH)]
    batches = torch.cat(sorted_pools).view(-1, BATCH)
    return batches[torch.randperm(len(batches), generator=draw)]


def passage_texts(chosen: list[Passage]) -> list[str]:
    return [passage.text for passage in chosen]


def tfidf_baseline(chosen: dict[Split, list[Passage]]) -> Pipeline:
    """TF-IDF of words and word pairs with logistic regression. The regularization is chosen on
    validation texts.
    """
    labels = {split: [p.label for p in rows] for split, rows in chosen.items()}
    fits = [
        make_pipeline(
            TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2)),
            LogisticRegression(C=c, max_iter=500),
        )
        for c in (1, 3, 10)
    ]
    for fit in fits:
        fit.fit(passage_texts(chosen["train"]), labels["train"])
    return max(
        fits, key=lambda fit: fit.score(passage_texts(chosen["calibration"]), labels["calibration"])
    )


def pretrain(
    arguments: argparse.Namespace, documents: list[Document], tokenizer: PreTrainedTokenizerFast
) -> tuple[BertForMaskedLM, TrainingCurve]:
    read = token_stream(tokenizer, [d for d in documents if d.split in ("train", "unlabelled")])
    held_out = token_stream(tokenizer, [d for d in documents if d.split == "calibration"])
    print(f"{len(read):,} tokens to read", flush=True)
    model = BertForMaskedLM(CONFIG)
    initialize_attention(model)
    if arguments.compile:
        model.bert.compile()

    @torch.no_grad()
    def held_out_loss() -> float:
        return (
            sum(
                masked_word_loss(model, *masked_batch(held_out, -1 - step)).item()
                for step in range(8)
            )
            / 8
        )

    schedule = Schedule(arguments.tokens // (BATCH * WINDOW), arguments.rate)
    return model, train(
        model,
        lambda step: masked_word_loss(model, *masked_batch(read, step)),
        held_out_loss,
        schedule,
        arguments.checkpoint,
    )


def fine_tune(
    arguments: argparse.Namespace, encoder: BertForMaskedLM, data: dict[Split, TokenizedPassages]
) -> tuple[BertForSequenceClassification, TrainingCurve]:
    CONFIG.hidden_dropout_prob = CONFIG.classifier_dropout = 0.1
    model = BertForSequenceClassification(CONFIG)
    # all but the pooler, which the masked language model lacks
    model.bert.load_state_dict(encoder.bert.state_dict(), strict=False)
    steps = arguments.epochs * (len(data["train"].labels) // BATCH)

    def loss(step: int) -> torch.Tensor:
        tokens, labels = fine_tuning_batch(data["train"], step)
        return cross_entropy(model_logits(model, tokens), labels, label_smoothing=0.1)

    def held_out_loss() -> float:
        rows, truth = (
            evaluation_logits(model, data["calibration"].tokens),
            data["calibration"].labels,
        )
        print(f"validation accuracy {(rows.argmax(1) == truth).float().mean():.4f}", flush=True)
        return cross_entropy(rows, truth).item()

    schedule = Schedule(steps, arguments.fine_rate, warmup=steps // 10, decay_share=0.9)
    return model, train(
        model, loss, held_out_loss, schedule, arguments.checkpoint.with_suffix(".fine.pt")
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--tokens", type=int, default=5_500_000, help="read while learning to fill in masked words"
    )
    options.add_argument("--rate", type=float, default=1e-3)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--fine-rate", type=float, default=2e-4)
    options.add_argument("--checkpoint", type=Path, default=Path("docs-classifier.pt"))
    options.add_argument(
        "--compile", action="store_true", help="fuse the step (needs a C++ compiler)"
    )
    arguments = options.parse_args()
    torch.manual_seed(0)
    documents = list(unique_documents(extract_documents()))
    tokenizer = trained_tokenizer(
        [mask_giveaways(d.text) for d in documents if d.split in ("train", "unlabelled")]
    )
    encoder, reading = pretrain(arguments, documents, tokenizer)
    chosen = passages_by_split(labeled_passages(documents))
    data = {split: TokenizedPassages.tokenize(tokenizer, rows) for split, rows in chosen.items()}
    model, learning = fine_tune(arguments, encoder, data)
    model.save_pretrained(OUT)
    tokenizer.save_pretrained(OUT)
    scores = test_scores(model, tfidf_baseline(chosen), data["evaluation"], chosen["evaluation"])
    (OUT / "README.md").write_text(model_card(arguments, model, chosen, reading, learning, scores))


def passages_by_split(rows: list[Passage]) -> dict[Split, list[Passage]]:
    chosen: dict[Split, list[Passage]] = {
        "train": [],
        "unlabelled": [],
        "calibration": [],
        "evaluation": [],
    }
    for passage in rows:
        chosen[passage.split].append(passage)
    return chosen


def test_scores(
    model: BertForSequenceClassification,
    baseline_model: Pipeline,
    test: TokenizedPassages,
    passages: list[Passage],
) -> tuple[float, ...]:
    """Accuracy and macro F1 of the model, then of the baseline, on the test passages."""
    both = (
        evaluation_logits(model, test.tokens).argmax(1),
        baseline_model.predict(passage_texts(passages)),
    )
    scores = tuple(
        score
        for guesses in both
        for score in (
            accuracy_score(test.labels, guesses),
            f1_score(test.labels, guesses, average="macro"),
        )
    )
    print("accuracy {:.4f}, macro F1 {:.4f}; baseline {:.4f}, {:.4f}".format(*scores), flush=True)
    return scores


def model_card(
    arguments: argparse.Namespace,
    model: BertForSequenceClassification,
    chosen: dict[Split, list[Passage]],
    reading: TrainingCurve,
    learning: TrainingCurve,
    scores: tuple[float, ...],
) -> str:
    accuracy, f1, baseline, baseline_f1 = scores
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in chosen.items())
    flags = (
        f"--tokens {arguments.tokens} --rate {arguments.rate} --epochs {arguments.epochs} "
        f"--fine-rate {arguments.fine_rate}{' --compile' if arguments.compile else ''}"
    )
    return f"""# docs-classifier

A BERT ({CONFIG.num_hidden_layers} blocks, {CONFIG.hidden_size} wide) that reads a documentation
passage and says which of {len(LABELS)} libraries it is from: {", ".join(LABELS)}.
{sum(p.numel() for p in model.parameters()):,} parameters, stored in float32.

- **Data**: documentation strings of the packages pinned in `requirements.txt`. Library names,
  import aliases, links and versions are masked; near-copies are dropped; the split is by
  source file. Passages: {counts} (calibration is validation, evaluation is test; the unlabeled
  ones are kept for students).
  Fingerprint of the test texts `{fingerprint([p.text for p in chosen["evaluation"]])}`.
- **Command**: `python -m engine.bundled.docs_classifier {flags}`, seed 0.
- **Held out**: accuracy **{accuracy:.3f}**, macro F1 **{f1:.3f}** on the test passages.
  The baseline (TF-IDF of words and word pairs, logistic regression) reaches {baseline:.3f} and
  {baseline_f1:.3f} on the same passages.

Learning to fill in masked words:

{curve_table(reading)}

Learning to classify:

{curve_table(learning)}
"""


if __name__ == "__main__":
    main()
