"""Evaluation examples that a student predicts wrongly and its teacher correctly."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.evaluation import EvaluationResult
from engine.evaluation.classification import (
    IMAGES,
    TEXTS,
    Batches,
    checked_length,
    class_targets,
    example_logits,
    image_batches,
    image_channels,
)
from engine.evaluation.data.examples import Examples, load_examples, load_text
from engine.evaluation.data.tokens import (
    as_one_text,
    first_target,
    model_inputs,
    text_tokens,
    token_batches,
    token_windows,
    window_prefix,
)
from engine.evaluation.masked import NOT_MASKED, masked_text
from engine.evaluation.measured import evaluation_mode, inputs_on_device
from engine.evaluation.progress import ignore_progress
from engine.events import ProgressEvent
from engine.models.loaded_model import LoadedModel
from engine.models.loading import ModelSource, config_of, image_processor_of, tokenizer_of
from engine.models.packed_modules import keep_unpacked
from engine.recipe.tasks import (
    Classification,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    Task,
    TextClassification,
)
from engine.results.schema.tables import MistakeRow, VerdictRow
from engine.step.run_context import RunContext
from engine.step.table_builder import TableBuilder

MAX_MISTAKES = 50  # mistakes that are shown
WINDOWS = 8  # of a text among which they are looked for
TEXT, SIDE = 300, 64  # characters of a text, pixels of an image's side that are shown
CASES = ((True, True), (True, False), (False, True), (False, False))  # teacher right, student right


@dataclass(frozen=True)
class EvaluationSet:
    """Evaluation examples and their correct answers."""

    folder: ModelSource  # with the tokenizer or image processor of both models
    right: np.ndarray  # of every question

    @property
    def searched_count(self) -> int:
        """Questions among which mistakes are looked for."""
        return len(self.right)

    def answer_probabilities(
        self, loaded: LoadedModel, indices: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """Probability that a model assigns to each of these answers.  places and answers:
        (questions,)
        """
        raise NotImplementedError

    def question(self, index: int) -> dict[str, str]:
        """Text or image of an example."""
        raise NotImplementedError

    def answer_name(self, answer: int) -> str:
        raise NotImplementedError


def mistake_tables(
    context: RunContext,
    before: EvaluationResult,
    after: EvaluationResult,
    teacher: LoadedModel,
    student: LoadedModel,
) -> TableBuilder:
    """Counts of all four cases, and the mistakes of which the student was surest, the surest
    first.
    """
    context.progress(ProgressEvent("analyzing-errors", 0, 1))
    paper = evaluation_set(context.recipe.task, context.folder)
    teacher_correct, student_correct = before.guesses == paper.right, after.guesses == paper.right
    counts = [
        VerdictRow(one, other, int(((teacher_correct == one) & (student_correct == other)).sum()))
        for one, other in CASES
    ]
    lost_examples = np.flatnonzero((teacher_correct & ~student_correct)[: paper.searched_count])
    return TableBuilder(
        verdicts=counts,
        mistakes=mistake_rows(paper, lost_examples, after.guesses, teacher, student)
        if len(lost_examples)
        else [],
    )


def mistake_rows(
    examples: EvaluationSet,
    lost_examples: np.ndarray,
    guesses: np.ndarray,
    teacher: LoadedModel,
    student: LoadedModel,
) -> list[MistakeRow]:
    confidence = examples.answer_probabilities(student, lost_examples, guesses[lost_examples])
    most_confident = np.argsort(-confidence, kind="stable")[:MAX_MISTAKES]
    indices = lost_examples[most_confident]
    teacher_probabilities = examples.answer_probabilities(teacher, indices, examples.right[indices])
    return [
        MistakeRow(
            **examples.question(index),
            label=examples.answer_name(examples.right[index]),
            teacher=teacher_probability,
            answer=examples.answer_name(guesses[index]),
            student=student_probability,
        )
        for index, teacher_probability, student_probability in zip(
            indices.tolist(),
            teacher_probabilities.tolist(),
            confidence[most_confident].tolist(),
            strict=True,
        )
    ]


@singledispatch
def evaluation_set(task: Task, folder: ModelSource) -> EvaluationSet:
    raise TypeError(f"{type(task).__name__} asks nothing")


# --- classes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassificationSet(EvaluationSet):
    task: Classification
    examples: Examples

    def answer_probabilities(
        self, loaded: LoadedModel, indices: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        with keep_unpacked(loaded.model):
            logits = example_logits(
                loaded.model,
                self.batches([self.examples.inputs[index] for index in indices]),
                len(indices),
                loaded.device,
                ignore_progress,
            )
        return logits.float().softmax(-1).numpy()[np.arange(len(indices)), answers]

    def batches(self, inputs: list[Any]) -> Batches:
        """Batches without padding, as in the evaluation."""
        config = config_of(self.folder)
        if isinstance(self.task, ImageClassification):
            return image_batches(
                inputs, image_processor_of(self.folder), image_channels(config), IMAGES
            )
        tokenizer, batch_size = (
            tokenizer_of(self.folder),
            TEXTS if getattr(config, "pad_token_id", None) is not None else 1,
        )
        return token_batches(
            inputs, tokenizer, checked_length(self.task.length, config, tokenizer), batch_size
        )

    def question(self, index: int) -> dict[str, str]:
        example_input = self.examples.inputs[index]
        return (
            {"text": shortened_text(as_one_text(example_input))}
            if isinstance(example_input, str | tuple)
            else {"picture": image_data_url(example_input)}
        )

    def answer_name(self, answer: int) -> str:
        return str(config_of(self.folder).id2label[int(answer)])


@evaluation_set.register(TextClassification)
@evaluation_set.register(ImageClassification)
def classification_set(task: Classification, folder: ModelSource) -> ClassificationSet:
    examples = load_examples(task)
    return ClassificationSet(
        folder, class_targets(examples, config_of(folder)).numpy(), task, examples
    )


def shortened_text(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"


def image_data_url(image: Image.Image) -> str:
    """A small PNG, as a data: address."""
    small, file = image.convert("L" if image.mode == "L" else "RGB"), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


# --- next tokens ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NextTokenSet(EvaluationSet):
    windows: torch.Tensor  # (windows, context)
    prefix: int = 0  # special tokens at the start of each window

    @property
    def searched_count(self) -> int:
        return min(len(self.windows), WINDOWS) * self.questions_per_window

    @property
    def questions_per_window(self) -> int:
        """Questions of one window."""
        return self.windows.shape[1] - self.first

    @property
    def first(self) -> int:
        """Place in a window of the first token that is predicted."""
        return max(1, self.prefix)

    def answer_probabilities(
        self, loaded: LoadedModel, indices: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        found = np.zeros(len(indices))
        with evaluation_mode(loaded.model), keep_unpacked(loaded.model):
            for window, questions in questions_by_window(indices // self.questions_per_window):
                logits = loaded.model(
                    **inputs_on_device(
                        model_inputs([self.windows[window].tolist()]), loaded.model, loaded.device
                    )
                ).logits[0]
                shares = (
                    logits[self.first - 1 + indices[questions] % self.questions_per_window]
                    .float()
                    .softmax(-1)
                    .cpu()
                    .numpy()
                )
                found[questions] = shares[np.arange(len(questions)), answers[questions]]
        return found

    def question(self, index: int) -> dict[str, str]:
        window, token = divmod(index, self.questions_per_window)
        before = tokenizer_of(self.folder).decode(
            self.windows[window, self.prefix : self.first + token]
        )
        return {"text": f"…{before[-TEXT // 2 :]}"}

    def answer_name(self, answer: int) -> str:
        return repr(tokenizer_of(self.folder).decode([int(answer)]))


@evaluation_set.register
def next_token_set(task: LanguageModeling, folder: ModelSource) -> NextTokenSet:
    text = load_text(task.text, task.text_column, task.split)
    tokenizer = tokenizer_of(folder)
    prefix = window_prefix(tokenizer, task.bos)
    windows = token_windows(
        text_tokens(text, tokenizer, task.tokens), task.context, text.name, prefix
    )
    return NextTokenSet(
        folder, windows[:, first_target(prefix) :].flatten().numpy(), windows, len(prefix)
    )


@dataclass(frozen=True)
class MaskedTokenSet(EvaluationSet):
    """Questions about masked tokens, one each."""

    windows: torch.Tensor  # with mask tokens, (windows, context)
    masks: torch.Tensor  # positions of the masks, (windows, masked tokens per window) int64

    @property
    def searched_count(self) -> int:
        return min(len(self.windows), WINDOWS) * self.questions_per_window

    @property
    def questions_per_window(self) -> int:
        """Questions of one window."""
        return self.masks.shape[1]

    def answer_name(self, answer: int) -> str:
        return repr(tokenizer_of(self.folder).decode([int(answer)]))

    def answer_probabilities(
        self, loaded: LoadedModel, indices: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        found = np.zeros(len(indices))
        with evaluation_mode(loaded.model), keep_unpacked(loaded.model):
            for window, questions in questions_by_window(indices // self.questions_per_window):
                logits = loaded.model(
                    **inputs_on_device(
                        model_inputs([self.windows[window].tolist()]), loaded.model, loaded.device
                    )
                ).logits[0]
                shares = (
                    logits[
                        self.masks[window, indices[questions] % self.questions_per_window].to(
                            logits.device
                        )
                    ]
                    .float()
                    .softmax(-1)
                    .cpu()
                    .numpy()
                )
                found[questions] = shares[np.arange(len(questions)), answers[questions]]
        return found

    def question(self, index: int) -> dict[str, str]:
        window, mask = divmod(index, self.questions_per_window)
        position, tokenizer = int(self.masks[window, mask]), tokenizer_of(self.folder)
        before, after = (
            tokenizer.decode(part)
            for part in (self.windows[window, :position], self.windows[window, position + 1 :])
        )
        return {"text": f"…{before[-TEXT // 2 :]}▁{after[: TEXT // 4]}…"}


@evaluation_set.register
def masked_token_set(task: MaskedLanguageModeling, folder: ModelSource) -> MaskedTokenSet:
    _, inputs, labels = masked_text(task, tokenizer_of(folder), config_of(folder), ignore_progress)
    masked = labels != NOT_MASKED
    return MaskedTokenSet(
        folder, labels[masked].numpy(), inputs, masked.nonzero()[:, 1].view(len(inputs), -1)
    )


def questions_by_window(windows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each window with the places in ``windows`` that name it."""
    for window in np.unique(windows):
        yield int(window), np.flatnonzero(windows == window)
