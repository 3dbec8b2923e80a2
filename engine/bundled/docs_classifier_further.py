"""Further training of the classifier: more masked-language-model pretraining, then self-training on
unlabeled passages of the training files. The encoder had seen each word only once, and its
pretraining loss was still falling. The model and its baseline make different mistakes, so their
ensemble is better than either. Its predictions on passages that neither was trained on are the soft
labels of the self-training, along with the labeled passages (distillation as in Hinton et al. 2015,
arXiv:1503.02531). Training starts from the current model and keeps the running mean of the weights
(Polyak averaging) that was best on validation; the accuracy of single steps varies by one point
there.

python -m engine.bundled.docs_classifier_further --tokens 12000000 --epochs 1.5 --checkpoint
/tmp/docs-classifier-further.pt
"""

import argparse
from pathlib import Path

import torch
from sklearn.pipeline import Pipeline
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from engine.bundled.docs_classifier import (
    BATCH,
    CONFIG,
    OUT,
    PAD,
    WINDOW,
    TokenizedPassages,
    evaluation_logits,
    fine_tuning_batch,
    masked_batch,
    masked_word_loss,
    model_logits,
    passage_texts,
    passages_by_split,
    test_scores,
    tfidf_baseline,
    token_stream,
)
from engine.bundled.pretraining import Schedule, TrainingCurve, curve_table, train
from engine.evaluation.data.documents import Document, extract_documents, unique_documents
from engine.evaluation.data.passages import LABELS, MAX_PER_LABEL, Passage, labeled_passages

MAX_PER_DOCUMENT_IN_TRAINING = 30  # maximum passages per document; the first training used 4
EMA_DECAY = 0.99  # decay of the running mean of the weights, per step
# weight of the baseline in the ensemble, chosen on validation
SHARES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)


def log_probabilities(model: BertForSequenceClassification, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities, (texts, labels). Texts of similar length share a batch."""
    order = (tokens != PAD).sum(1).argsort()
    rows = torch.empty(len(tokens), len(LABELS))
    rows[order] = evaluation_logits(model, tokens[order]).log_softmax(1)
    return rows


def ensemble_probabilities(
    model: BertForSequenceClassification,
    baseline_model: Pipeline,
    data: TokenizedPassages,
    chosen: list[Passage],
) -> dict[float, torch.Tensor]:
    """Ensemble probabilities for each weight of the baseline. (texts, labels)"""
    further, baseline = (
        log_probabilities(model, data.tokens),
        torch.tensor(baseline_model.predict_log_proba(passage_texts(chosen)), dtype=torch.float32),
    )
    return {share: ((1 - share) * further + share * baseline).softmax(1) for share in SHARES}


def accuracy(rows: torch.Tensor, labels: torch.Tensor) -> float:
    return (rows.argmax(1) == labels).float().mean().item()


def continue_pretraining(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[Document],
    arguments: argparse.Namespace,
) -> TrainingCurve:
    """Encoder of the model with a new masked-language-model head, which is discarded afterwards."""
    read, held_out = (
        token_stream(tokenizer, [d for d in documents if d.split in splits])
        for splits in (("train", "unlabelled"), ("calibration",))
    )
    reader = BertForMaskedLM(CONFIG)
    # without dropout, as in the first pretraining
    reader.bert.embeddings, reader.bert.encoder = (
        model.bert.embeddings.eval(),
        model.bert.encoder.eval(),
    )
    reader.tie_weights()
    # other windows than those of the first pretraining
    steps, first_step = arguments.tokens // (BATCH * WINDOW), 1_000_000

    @torch.no_grad()
    def held_out_loss() -> float:
        return (
            sum(
                masked_word_loss(reader, *masked_batch(held_out, -1 - step)).item()
                for step in range(8)
            )
            / 8
        )

    schedule = Schedule(steps, arguments.reading_rate, warmup=steps // 20, decay_share=0.6)
    encoded_file = arguments.checkpoint.with_suffix(".read.pt")
    return train(
        reader,
        lambda step: masked_word_loss(reader, *masked_batch(read, first_step + step)),
        held_out_loss,
        schedule,
        encoded_file,
    )


def self_train(
    model: BertForSequenceClassification,
    data: TokenizedPassages,
    held_out: TokenizedPassages,
    arguments: argparse.Namespace,
) -> TrainingCurve:
    steps, best = (
        int(arguments.epochs * (len(data.labels) // BATCH)),
        {"accuracy": 0.0, "weights": {}},
    )
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))

    def loss(step: int) -> torch.Tensor:
        mean.update_parameters(model)
        tokens, shares = fine_tuning_batch(data, step)
        return cross_entropy(model_logits(model, tokens), shares)

    def held_out_loss() -> float:
        rows = evaluation_logits(mean.module, held_out.tokens)
        right = accuracy(rows, held_out.labels)
        print(f"validation accuracy {right:.4f}", flush=True)
        if right > best["accuracy"]:
            best.update(
                accuracy=right,
                weights={name: value.clone() for name, value in mean.module.state_dict().items()},
            )
        return cross_entropy(rows, held_out.labels).item()

    model.train()
    curve = train(
        model,
        loss,
        held_out_loss,
        Schedule(steps, arguments.rate, warmup=steps // 20, decay_share=0.95),
        arguments.checkpoint,
    )
    model.load_state_dict(best["weights"])
    return curve


def additional_passages(documents: list[Document], existing: list[Passage]) -> list[Passage]:
    """Passages of the training files other than the ``existing`` ones."""
    texts = set(passage_texts(existing))
    every = labeled_passages(
        documents, MAX_PER_DOCUMENT_IN_TRAINING, MAX_PER_LABEL | {"train": 1_000_000}
    )
    return [passage for passage in every if passage.split == "train" and passage.text not in texts]


def self_training_data(
    model: BertForSequenceClassification,
    baseline_model: Pipeline,
    chosen: dict[str, list[Passage]],
    data: dict[str, TokenizedPassages],
) -> TokenizedPassages:
    """Labeled passages with their labels, and other passages with the ensemble's predictions."""
    probabilities = ensemble_probabilities(
        model, baseline_model, data["calibration"], chosen["calibration"]
    )
    share = max(
        SHARES,
        key=lambda candidate_share: accuracy(
            probabilities[candidate_share], data["calibration"].labels
        ),
    )
    print(
        (
            f"together {accuracy(probabilities[share], data['calibration'].labels):.4f} "
            f"on validation, the baseline's share {share}"
        ),
        flush=True,
    )
    soft = ensemble_probabilities(model, baseline_model, data["more"], chosen["more"])[share]
    hard = 0.9 * one_hot(data["train"].labels, len(LABELS)).float() + 0.1 / len(LABELS)
    return TokenizedPassages(
        torch.cat([data["train"].tokens, data["more"].tokens]), torch.cat([hard, soft])
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--tokens", type=int, default=0, help="read before, filling in masked words"
    )
    options.add_argument("--reading-rate", type=float, default=7e-4)
    options.add_argument("--epochs", type=float, default=1.0)
    options.add_argument("--rate", type=float, default=1e-4)
    options.add_argument("--checkpoint", type=Path, default=Path("docs-classifier-further.pt"))
    arguments = options.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(OUT)
    model = BertForSequenceClassification.from_pretrained(
        OUT, hidden_dropout_prob=0.1, classifier_dropout=0.1
    )
    documents = list(unique_documents(extract_documents()))
    chosen = passages_by_split(labeled_passages(documents))
    chosen |= {"more": additional_passages(documents, chosen["train"])}
    data = {split: TokenizedPassages.tokenize(tokenizer, rows) for split, rows in chosen.items()}
    other = tfidf_baseline(chosen)
    training_data = self_training_data(model, other, chosen, data)
    reading = (
        continue_pretraining(model, tokenizer, documents, arguments)
        if arguments.tokens
        else TrainingCurve([])
    )
    curve = self_train(model, training_data, data["calibration"], arguments)
    model.config.hidden_dropout_prob = model.config.classifier_dropout = 0.0
    model.save_pretrained(OUT)
    scores = test_scores(model, other, data["evaluation"], chosen["evaluation"])
    card = OUT / "README.md"
    card.write_text(
        extended_model_card(
            card.read_text(), arguments, scores, reading, curve, len(chosen["more"])
        )
    )


def extended_model_card(
    card: str,
    arguments: argparse.Namespace,
    scores: tuple[float, ...],
    reading: TrainingCurve,
    curve: TrainingCurve,
    more: int,
) -> str:
    """Model card with a section on the further training."""
    before = (
        f"--tokens {arguments.tokens} --reading-rate {arguments.reading_rate:g} "
        if arguments.tokens
        else ""
    )
    command = (
        f"`python -m engine.bundled.docs_classifier_further {before}--epochs "
        f"{arguments.epochs:g} --rate {arguments.rate:g}`"
    )
    lines = card.rstrip().splitlines()
    held_out = next(
        number for number, line in enumerate(lines) if line.startswith("- **Held out**")
    )
    lines[held_out] = (
        f"- **Held out**: accuracy **{scores[0]:.3f}**, macro F1 **{scores[1]:.3f}** on the "
        "test passages."
    )
    lines[held_out:held_out] = [
        f"- **Further training**: {command}.",
        (
            f"  Self-training on {more:,} more passages of the training files without labels, with "
            "the predictions of the ensemble of model and baseline, and on the labeled passages."
        ),
        (
            "  Stored: the running mean of the weights "
            f"(decay {EMA_DECAY:g} per step) that was best on validation."
        ),
    ]
    read = (
        ["", "Further pretraining, masked words:", "", curve_table(reading)]
        if arguments.tokens
        else []
    )
    return "\n".join([*lines, *read, "", "Further training:", "", curve_table(curve), ""])


if __name__ == "__main__":
    main()
