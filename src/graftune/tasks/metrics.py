"""Scores of predictions against references, each by the package that the field reports with."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version


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


def classification(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Accuracy and macro F1 (over the labels that occur in either), from 0 to 1."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }
