"""Scores of written text: BLEU, chrF and ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from graftune.tasks.metrics.scores import Scores, Sums

References = Sequence[Sequence[str]]


def streams(references: References) -> list[list[str | None]]:
    """References per prediction -> sacrebleu's layout: stream j holds every prediction's j-th reference.

    Predictions with fewer references than others get None, which sacrebleu leaves out.
    """
    longest = max(len(texts) for texts in references)
    return [[texts[j] if j < len(texts) else None for texts in references] for j in range(longest)]


def generation(predictions: Sequence[str], references: References, tokenize: str = "13a") -> Scores:
    """Corpus BLEU, chrF and mean ROUGE-L, each from 0 to 100.

    `references[i]` are the one or more references of `predictions[i]`.
    """
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(tokenize=tokenize), CHRF()
    layout = streams(references)
    rouge, _ = _rouge(predictions, references, ("rougeL",), use_stemmer=False)
    rows = []
    for text, texts in zip(predictions, references, strict=True):
        one = bleu.corpus_score([text], [[reference] for reference in texts])
        rows.append((one.sys_len, one.ref_len, *one.counts, *one.totals))
    values = {
        "bleu": float(bleu.corpus_score(list(predictions), layout).score),
        "chrf": float(chrf.corpus_score(list(predictions), layout).score),
        **rouge,
    }
    notes = {
        "bleu": str(bleu.get_signature()),
        "chrf": str(chrf.get_signature()),
        "rougeL": f"rouge-score {version('rouge-score')}, F1, no stemmer, best reference, 0 to 100",
    }
    if not any(character.isascii() and character.isalnum() for texts in references for character in texts[0]):
        notes["rougeL"] += "; always 0 here: it counts only a-z and 0-9, which the references do not have"
    return Scores(values, notes, Sums("bleu", rows))


def rouge_first(scores: Scores, predictions: Sequence[str], references: References) -> Scores:
    """The same scores, with the sums of ROUGE-L in place of BLEU's, for tasks that it ranks."""
    _, each = _rouge(predictions, references, ("rougeL",), use_stemmer=False)
    return Scores(scores.values, scores.notes, Sums("mean", [(one, 1.0) for one in each["rougeL"]], 100.0))


def summaries(predictions: Sequence[str], references: References) -> Scores:
    """Mean ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (a sentence a line), 0 to 100, by the best reference."""
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    values, each = _rouge(predictions, references, names, use_stemmer=True)
    note = f"rouge-score {version('rouge-score')}, F1, Porter stemmer, best reference, 0 to 100"
    sums = Sums("mean", [(one, 1.0) for one in each["rougeL"]], 100.0)
    return Scores(values, {"rouge": note + "; Lsum takes lines as sentences"}, sums)


def _rouge(
    predictions: Sequence[str], references: References, names: tuple[str, ...], *, use_stemmer: bool
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Mean F1 from 0 to 100, and the F1 of each prediction from 0 to 1, by its best reference."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(names), use_stemmer=use_stemmer)
    found = [scorer.score_multi(list(texts), text) for text, texts in zip(predictions, references, strict=True)]
    each = {name: [one[name].fmeasure for one in found] for name in names}
    return {name: 100.0 * sum(values) / len(values) for name, values in each.items()}, each
