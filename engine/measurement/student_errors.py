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

from engine.evaluation import Measured
from engine.evaluation.classification import (
    IMAGES,
    TEXTS,
    Batches,
    channels_of,
    fitting_length,
    image_batches,
    judged,
    targets_of,
)
from engine.evaluation.data.examples import Examples, examples_of, text_of
from engine.evaluation.data.tokens import (
    as_one_text,
    first_target,
    model_inputs,
    stream_of,
    token_batches,
    window_prefix,
    windows_of,
)
from engine.evaluation.masked import NOT_MASKED, masked_text
from engine.evaluation.measured import judging, placed
from engine.evaluation.progress import silent
from engine.events import ProgressEvent
from engine.models.loaded_model import Opened
from engine.models.loading import Folder, config_of, image_processor_of, tokenizer_of
from engine.models.packed_modules import unpacked_once
from engine.recipe.tasks import (
    Classification,
    ImageClassification,
    LanguageModeling,
    MaskedLanguageModeling,
    Task,
    TextClassification,
)
from engine.results.schema.tables import MistakeRow, VerdictRow
from engine.step.run_context import Bench, Rows

MOST = 50  # mistakes that are shown
WINDOWS = 8  # of a text among which they are looked for
TEXT, SIDE = 300, 64  # characters of a text, pixels of a picture's side that are shown
CASES = ((True, True), (True, False), (False, True), (False, False))  # teacher right, student right


@dataclass(frozen=True)
class Paper:
    """Evaluation examples and their correct answers."""

    folder: Folder  # with the tokenizer or image processor of both models
    right: np.ndarray  # of every question

    @property
    def looked_through(self) -> int:
        """Questions among which mistakes are looked for."""
        return len(self.right)

    def likely(self, at: Opened, places: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Probability that a model assigns to each of these answers.  places and answers:
        (questions,)
        """
        raise NotImplementedError

    def question(self, place: int) -> dict[str, str]:
        """Text or image of an example."""
        raise NotImplementedError

    def named(self, answer: int) -> str:
        raise NotImplementedError


def mistakes(
    bench: Bench, before: Measured, after: Measured, teacher: Opened, student: Opened
) -> Rows:
    """Counts of all four cases, and the mistakes of which the student was surest, the surest
    first.
    """
    bench.progress(ProgressEvent("analyzing-errors", 0, 1))
    paper = paper_of(bench.recipe.task, bench.folder)
    knew, knows = before.guesses == paper.right, after.guesses == paper.right
    counts = [
        VerdictRow(one, other, int(((knew == one) & (knows == other)).sum()))
        for one, other in CASES
    ]
    lost = np.flatnonzero((knew & ~knows)[: paper.looked_through])
    return Rows(
        verdicts=counts,
        mistakes=mistake_rows(paper, lost, after.guesses, teacher, student) if len(lost) else [],
    )


def mistake_rows(
    paper: Paper, lost: np.ndarray, guesses: np.ndarray, teacher: Opened, student: Opened
) -> list[MistakeRow]:
    sure = paper.likely(student, lost, guesses[lost])
    surest = np.argsort(-sure, kind="stable")[:MOST]
    places = lost[surest]
    theirs = paper.likely(teacher, places, paper.right[places])
    return [
        MistakeRow(
            **paper.question(place),
            label=paper.named(paper.right[place]),
            teacher=its,
            answer=paper.named(guesses[place]),
            student=mine,
        )
        for place, its, mine in zip(
            places.tolist(), theirs.tolist(), sure[surest].tolist(), strict=True
        )
    ]


@singledispatch
def paper_of(task: Task, folder: Folder) -> Paper:
    raise TypeError(f"{type(task).__name__} asks nothing")


# --- classes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classes(Paper):
    task: Classification
    examples: Examples

    def likely(self, at: Opened, places: np.ndarray, answers: np.ndarray) -> np.ndarray:
        with unpacked_once(at.model):
            logits = judged(
                at.model,
                self.batches([self.examples.inputs[place] for place in places]),
                len(places),
                at.device,
                silent,
            )
        return logits.float().softmax(-1).numpy()[np.arange(len(places)), answers]

    def batches(self, inputs: list[Any]) -> Batches:
        """Batches without padding, as in the evaluation."""
        config = config_of(self.folder)
        if isinstance(self.task, ImageClassification):
            return image_batches(
                inputs, image_processor_of(self.folder), channels_of(config), IMAGES
            )
        tokenizer, most = (
            tokenizer_of(self.folder),
            TEXTS if getattr(config, "pad_token_id", None) is not None else 1,
        )
        return token_batches(
            inputs, tokenizer, fitting_length(self.task.length, config, tokenizer), most
        )

    def question(self, place: int) -> dict[str, str]:
        what = self.examples.inputs[place]
        return (
            {"text": shortened(as_one_text(what))}
            if isinstance(what, str | tuple)
            else {"picture": as_link(what)}
        )

    def named(self, answer: int) -> str:
        return str(config_of(self.folder).id2label[int(answer)])


@paper_of.register(TextClassification)
@paper_of.register(ImageClassification)
def paper_of_text_classification_or_image_classification(
    task: Classification, folder: Folder
) -> Classes:
    examples = examples_of(task)
    return Classes(folder, targets_of(examples, config_of(folder)).numpy(), task, examples)


def shortened(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[: TEXT - 1]}…"


def as_link(picture: Image.Image) -> str:
    """A small PNG, as a data: address."""
    small, file = picture.convert("L" if picture.mode == "L" else "RGB"), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


# --- next tokens ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NextTokens(Paper):
    windows: torch.Tensor  # (windows, context)
    prefix: int = 0  # special tokens at the start of each window

    @property
    def looked_through(self) -> int:
        return min(len(self.windows), WINDOWS) * self.asked

    @property
    def asked(self) -> int:
        """Questions of one window."""
        return self.windows.shape[1] - self.first

    @property
    def first(self) -> int:
        """Place in a window of the first token that is predicted."""
        return max(1, self.prefix)

    def likely(self, at: Opened, places: np.ndarray, answers: np.ndarray) -> np.ndarray:
        found = np.zeros(len(places))
        with judging(at.model), unpacked_once(at.model):
            for window, mine in by_window(places // self.asked):
                logits = at.model(
                    **placed(model_inputs([self.windows[window].tolist()]), at.model, at.device)
                ).logits[0]
                shares = (
                    logits[self.first - 1 + places[mine] % self.asked]
                    .float()
                    .softmax(-1)
                    .cpu()
                    .numpy()
                )
                found[mine] = shares[np.arange(len(mine)), answers[mine]]
        return found

    def question(self, place: int) -> dict[str, str]:
        window, token = divmod(place, self.asked)
        before = tokenizer_of(self.folder).decode(
            self.windows[window, self.prefix : self.first + token]
        )
        return {"text": f"…{before[-TEXT // 2 :]}"}

    def named(self, answer: int) -> str:
        return repr(tokenizer_of(self.folder).decode([int(answer)]))


@paper_of.register
def paper_of_language_modeling(task: LanguageModeling, folder: Folder) -> NextTokens:
    text = text_of(task.text, task.text_column, task.split)
    tokenizer = tokenizer_of(folder)
    prefix = window_prefix(tokenizer, task.bos)
    windows = windows_of(stream_of(text, tokenizer, task.tokens), task.context, text.name, prefix)
    return NextTokens(
        folder, windows[:, first_target(prefix) :].flatten().numpy(), windows, len(prefix)
    )


@dataclass(frozen=True)
class MaskedTokens(Paper):
    """Questions about masked tokens, one each."""

    windows: torch.Tensor  # with mask tokens, (windows, context)
    masks: torch.Tensor  # positions of the masks, (windows, masked tokens per window) int64

    @property
    def looked_through(self) -> int:
        return min(len(self.windows), WINDOWS) * self.asked

    @property
    def asked(self) -> int:
        """Questions of one window."""
        return self.masks.shape[1]

    def named(self, answer: int) -> str:
        return repr(tokenizer_of(self.folder).decode([int(answer)]))

    def likely(self, at: Opened, places: np.ndarray, answers: np.ndarray) -> np.ndarray:
        found = np.zeros(len(places))
        with judging(at.model), unpacked_once(at.model):
            for window, mine in by_window(places // self.asked):
                logits = at.model(
                    **placed(model_inputs([self.windows[window].tolist()]), at.model, at.device)
                ).logits[0]
                shares = (
                    logits[self.masks[window, places[mine] % self.asked].to(logits.device)]
                    .float()
                    .softmax(-1)
                    .cpu()
                    .numpy()
                )
                found[mine] = shares[np.arange(len(mine)), answers[mine]]
        return found

    def question(self, place: int) -> dict[str, str]:
        window, mask = divmod(place, self.asked)
        at, tokenizer = int(self.masks[window, mask]), tokenizer_of(self.folder)
        before, after = (
            tokenizer.decode(part)
            for part in (self.windows[window, :at], self.windows[window, at + 1 :])
        )
        return {"text": f"…{before[-TEXT // 2 :]}▁{after[: TEXT // 4]}…"}


@paper_of.register
def paper_of_masked_language_modeling(task: MaskedLanguageModeling, folder: Folder) -> MaskedTokens:
    _, inputs, labels = masked_text(task, tokenizer_of(folder), config_of(folder), silent)
    masked = labels != NOT_MASKED
    return MaskedTokens(
        folder, labels[masked].numpy(), inputs, masked.nonzero()[:, 1].view(len(inputs), -1)
    )


def by_window(windows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each window with the places in ``windows`` that name it."""
    for window in np.unique(windows):
        yield int(window), np.flatnonzero(windows == window)
