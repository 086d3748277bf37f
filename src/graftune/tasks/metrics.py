"""Scores of predictions against references, each by the package that the field reports with."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References per prediction -> sacrebleu's layout: stream j holds every prediction's j-th reference.

    Predictions with fewer references than others get None, which sacrebleu leaves out.
    """
    longest = max(len(texts) for texts in references)
    return [[texts[j] if j < len(texts) else None for texts in references] for j in range(longest)]


def generation(
    predictions: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "13a"
) -> tuple[dict[str, float], dict[str, str]]:
    """Corpus BLEU, chrF and mean ROUGE-L, each from 0 to 100, and how each was computed.

    `references[i]` are the one or more references of `predictions[i]`.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(tokenize=tokenize), CHRF()
    rouge = RougeScorer(["rougeL"], use_stemmer=False)
    layout = streams(references)
    longest = [
        rouge.score_multi(list(texts), text)["rougeL"].fmeasure
        for text, texts in zip(predictions, references, strict=True)
    ]
    scores = {
        "bleu": float(bleu.corpus_score(list(predictions), layout).score),
        "chrf": float(chrf.corpus_score(list(predictions), layout).score),
        "rougeL": 100.0 * sum(longest) / len(longest),
    }
    notes = {
        "bleu": str(bleu.get_signature()),
        "chrf": str(chrf.get_signature()),
        "rougeL": f"rouge-score {version('rouge-score')}, F1, no stemmer, best reference, 0 to 100",
    }
    if not any(character.isascii() and character.isalnum() for texts in references for character in texts[0]):
        notes["rougeL"] += "; always 0 here: it counts only a-z and 0-9, which the references do not have"
    return scores, notes


def summaries(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, str]]:
    """Mean ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (a sentence a line), 0 to 100, by the best reference."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    rouge = RougeScorer(list(names), use_stemmer=True)
    found = [rouge.score_multi(list(texts), text) for text, texts in zip(predictions, references, strict=True)]
    scores = {name: 100.0 * sum(one[name].fmeasure for one in found) / len(found) for name in names}
    note = f"rouge-score {version('rouge-score')}, F1, Porter stemmer, best reference, 0 to 100"
    return scores, {"rouge": note + "; Lsum takes lines as sentences"}


def tags(
    predictions: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, str]]:
    """Precision, recall and F1 of entities (micro average) and accuracy of words, from 0 to 1.

    Without tags that begin entities (B-, I-, E-, S- …) the words are the entities: F1 is the macro average then.
    """
    from seqeval.metrics import f1_score, precision_score, recall_score

    flat_guesses, flat_truth = ([tag for row in side for tag in row] for side in (predictions, truth))
    correct = sum(guess == tag for guess, tag in zip(flat_guesses, flat_truth, strict=True))
    accuracy = {"accuracy": correct / len(flat_truth)}
    if not any(tag[:2] in ("B-", "I-") for tag in {*flat_truth, *flat_guesses}):
        names = sorted({*flat_truth, *flat_guesses})
        numbers = [[names.index(tag) for tag in side] for side in (flat_guesses, flat_truth)]
        return classification(*numbers), {"f1": "macro F1 of words: the tags mark no entities"}
    sides = [list(row) for row in truth], [list(row) for row in predictions]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where nothing is predicted, it scores 0 and warns
        scores = {
            "f1": float(f1_score(*sides)),
            "precision": float(precision_score(*sides)),
            "recall": float(recall_score(*sides)),
        }
    return scores | accuracy, {"f1": f"seqeval {version('seqeval')}, entities, micro average, as conlleval counts"}


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """The words with their entities in brackets: ``of [colon cancer | Disease] .``; other tags behind each word."""
    from seqeval.metrics.sequence_labeling import get_entities

    if not any(tag[:2] in ("B-", "I-") for tag in tags):
        return " ".join(words) if set(tags) <= {"O"} else " ".join(map("/".join, zip(words, tags, strict=True)))
    shown = list(words)
    for kind, first, last in get_entities(list(tags)):
        shown[first] = f"[{shown[first]}"
        shown[last] = f"{shown[last]} | {kind}]"
    return " ".join(shown)


def spans(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, float], dict[str, str]]:
    """Exact match and F1 of words after SQuAD's normalisation, each from 0 to 100, by the best answer."""
    from torchmetrics.functional.text import squad

    guesses: list[Any] = [{"prediction_text": text, "id": str(i)} for i, text in enumerate(predictions)]
    truth: list[Any] = [
        {"answers": {"answer_start": [0] * len(texts), "text": list(texts)}, "id": str(i)}
        for i, texts in enumerate(references)
    ]
    found = squad(guesses, truth)
    note = f"torchmetrics {version('torchmetrics')}, SQuAD v1.1, 0 to 100"
    return {"f1": float(found["f1"]), "em": float(found["exact_match"])}, {"f1": note}


def regression(predictions: Sequence[float], truth: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation (0 where either side is constant), and mean errors."""
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    constant = len(set(predictions)) < 2 or len(set(truth)) < 2
    return {
        "pearson": 0.0 if constant else float(pearsonr(predictions, truth).statistic),
        "spearman": 0.0 if constant else float(spearmanr(predictions, truth).statistic),
        "mae": float(mean_absolute_error(truth, predictions)),
        "rmse": float(root_mean_squared_error(truth, predictions)),
    }


def detection(
    predictions: Sequence[tuple[Any, Any, Any]], truth: Sequence[tuple[Any, Any]], labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """COCO's mean average precision, from 0 to 1: over overlaps of 0.5 to 0.95, at 0.5, at 0.75, and by class.

    A prediction is scores (n,), labels (n,) and boxes (n, 4) of edges in pixels; truth is labels and boxes.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def coco(boxes: Any) -> Any:
        """Left, top, width and height."""
        return [[x, y, right - x, bottom - y] for x, y, right, bottom in boxes.tolist()]

    objects = [
        {"image_id": image, "category_id": int(label), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for image, (wanted, boxes) in enumerate(truth)
        for label, box in zip(wanted, coco(boxes), strict=True)
    ]
    guesses = [
        {"image_id": image, "category_id": int(label), "bbox": box, "score": float(score)}
        for image, (scores, found, boxes) in enumerate(predictions)
        for score, label, box in zip(scores, found, coco(boxes), strict=True)
    ]
    data = COCO()
    data.dataset = {
        "images": [{"id": image} for image in range(len(truth))],
        "categories": [{"id": number} for number in range(len(labels))],
        "annotations": [{"id": number, **one} for number, one in enumerate(objects, 1)],
        "info": {},
    }
    with redirect_stdout(io.StringIO()):  # it prints as it goes
        data.createIndex()
        judge = COCOeval(data, data.loadRes(guesses), "bbox") if guesses else None
        if judge is not None:
            judge.evaluate()
            judge.accumulate()

    def mean(precision: Any) -> float:
        """Over what there is: -1 stands for classes that no image has."""
        there = precision[precision > -1]
        return float(there.mean()) if there.size else 0.0

    if judge is None:
        every = dict.fromkeys(("map", "map50", "map75", *(f"map {label}" for label in labels)), 0.0)
    else:
        table = judge.eval["precision"][..., 0, -1]  # (overlaps, recalls, classes), all areas, 100 predictions
        every = {"map": mean(table), "map50": mean(table[0]), "map75": mean(table[5])}
        every |= {f"map {label}": mean(table[..., number]) for number, label in enumerate(labels)}
    return every, {"map": f"pycocotools {version('pycocotools')}, 100 predictions an image"}


def classification(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy and macro F1 (over the labels that occur in either), from 0 to 1."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }
