"""Make a small pretrained encoder-decoder that translates Chinese into English, and not the other way:

    python tools/pretrain_translator.py --data DATA --out runs/bases/translator

DATA is a folder with ``train*.jsonl`` and ``dev.jsonl``, a line {"en": "...", "zh": "..."} a pair. One BPE is trained
on both languages, with a token for each Chinese character. Then a Marian model learns three things: to restore English
sentences of which spans are hidden or missing, to restore Chinese ones, and to translate from Chinese into English.
From English into Chinese it never translates: that is left to adapt it to. It is exported to OUT as a Transformers
folder with its tokenizer, after each ``--every`` steps and at the end.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from pretraining.short import begin, fit
from sacrebleu import corpus_bleu
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, MASK = range(5)
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
ALONE = r"[\p{Han}\u3000-\u303f\uff00-\uffef.,!?;:\"“”…]"  # each a token of its own
LONGEST = 64  # tokens of a text
HIDDEN = 0.35  # of the tokens of a sentence to restore
TASKS = {"zh-en": 0.4, "en-en": 0.25, "zh-zh": 0.35}  # shares of the steps
DIRECTIONS = (*TASKS, "en-zh")

Ids = dict[str, list[list[int]]]  # sentences of each language, without end
Question = tuple[Tensor, Tensor]  # source (n, s) with padding, labels (n, t) with -100 for it


def read(files: list[Path]) -> dict[str, list[str]]:
    """Sentences of each language, in pairs."""
    pairs = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return {language: [pair[language] for pair in pairs] for language in ("en", "zh")}


def train_tokenizer(texts: dict[str, list[str]], size: int) -> PreTrainedTokenizerFast:
    """A BPE of words and characters that ends each text with ``</s>`` and gives back the very text."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(ALONE), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL.values()), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(chain(*texts.values()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **SPECIAL,
    )


def build(vocabulary: int, width: int, layers: tuple[int, int]) -> MarianMTModel:
    """The model, with one embedding for source, target and output."""
    config = MarianConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        activation_function="gelu",
        dropout=0.1,
        scale_embedding=True,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=EOS,
    )
    model = MarianMTModel(config)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, decoder_start_token_id=BOS, max_length=LONGEST
    )
    return model


def damaged(ids: list[int], rng: np.random.Generator) -> list[int]:
    """The sentence with spans of about two tokens replaced by one mask each, or (one in five) by nothing."""
    result, left = [], 0
    for token in ids:
        if left == 0 and rng.random() < HIDDEN / 2 / (1 - HIDDEN):
            left = int(rng.geometric(0.5))
            result += [MASK] if rng.random() < 0.8 else []
        if left:
            left -= 1
        else:
            result.append(token)
    return result


def padded(rows: list[list[int]], filler: int) -> Tensor:
    """Rows with their end, as one tensor."""
    ended = [torch.tensor([*row[: LONGEST - 1], EOS]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(ended, batch_first=True, padding_value=filler)


def ask(ids: Ids, rows: np.ndarray, task: str, rng: np.random.Generator) -> Question:
    """Source and labels of some pairs; a task names the languages of both."""
    source, target = task.split("-")
    given = [damaged(ids[source][i], rng) if source == target else ids[source][i] for i in rows]
    return padded(given, PAD), padded([ids[target][i] for i in rows], -100)


def similar(ids: Ids, rows: int, rng: np.random.Generator) -> np.ndarray:
    """A batch of pairs of about one length, so that little of it is padding."""
    some = rng.integers(0, len(ids["en"]), rows * 8)
    ordered = sorted(some, key=lambda i: len(ids["en"][i]) + len(ids["zh"][i]))
    first = int(rng.integers(0, 8)) * rows
    return np.array(ordered[first : first + rows])


def loss(model: MarianMTModel, question: Question, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy a token."""
    source, labels = question
    logits = model(input_ids=source, attention_mask=(source != PAD).long(), labels=labels).logits
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)


@torch.no_grad()
def held_out(model: MarianMTModel, ids: Ids) -> dict[str, float]:
    """Losses a token of everything trained, and of what is left to adapt to."""
    model.eval()
    figures = {}
    for task in DIRECTIONS:
        rng, parts, count = np.random.default_rng(0), 0.0, 0
        for rows in np.array_split(np.arange(len(ids["en"])), len(ids["en"]) // 64 + 1):
            question = ask(ids, rows, task, rng)
            tokens = int((question[1] != -100).sum())
            parts, count = parts + loss(model, question).item() * tokens, count + tokens
        figures[task] = parts / count
    return figures


@torch.no_grad()
def translate(model: MarianMTModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[str]:
    """Most likely outputs, token by token."""
    model.eval()
    outputs = []
    for first in range(0, len(texts), 64):
        batch = tokenizer(texts[first : first + 64], return_tensors="pt", padding=True)
        outputs += tokenizer.batch_decode(model.generate(**batch, do_sample=False), skip_special_tokens=True)
    return outputs


def main(
    data: Annotated[Path, typer.Option(help="Folder of train*.jsonl and dev.jsonl with columns en and zh.")],
    out: Annotated[Path, typer.Option(help="Folder of the exported base.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 5000,
    minutes: Annotated[float, typer.Option(help="Time limit: with less time, fewer steps.")] = 30,
    batch: Annotated[int, typer.Option(help="Sentences a step.")] = 64,
    width: Annotated[int, typer.Option(help="Hidden size.")] = 192,
    vocabulary: Annotated[int, typer.Option(help="Tokens.")] = 7000,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Start values, order and hidden spans.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    every: Annotated[int, typer.Option(help="Steps between exports.")] = 500,
) -> None:
    """Train tokenizer and model, evaluate, export."""
    begin(threads, seed)
    rng = np.random.default_rng(seed)
    texts, dev = read(sorted(data.glob("train*.jsonl"))), read([data / "dev.jsonl"])
    tokenizer = train_tokenizer(texts, vocabulary)
    ids, dev_ids = (
        {language: tokenizer(rows, add_special_tokens=False)["input_ids"] for language, rows in part.items()}
        for part in (texts, dev)
    )
    model = build(len(tokenizer), width, layers=(3, 2))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    typer.echo(f"{parameters} parameters, {len(tokenizer)} tokens, {len(ids['en'])} pairs")

    def loss_at(step: int) -> Tensor:
        task = str(rng.choice(list(TASKS), p=list(TASKS.values())))
        return loss(model, ask(ids, similar(ids, batch, rng), task, rng), smoothing=0.1)

    def export(step: int) -> None:
        figures = held_out(model, dev_ids)
        typer.echo(f"held out at {step}: " + ", ".join(f"{task} {value:.3f}" for task, value in figures.items()))
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)

    typer.echo(f"{fit(model, loss_at, steps, lr, minutes, export, every):.0f} s")
    translations = translate(model, tokenizer, dev["zh"])
    typer.echo(f"zh-en BLEU {corpus_bleu(translations, [dev['en']]).score:.1f}")
    for source, output, reference in list(zip(dev["zh"], translations, dev["en"], strict=True))[:8]:
        typer.echo(f"{source} → {output} ({reference})")
    for source in dev["en"][:3]:
        typer.echo(f"{source} → {translate(model, tokenizer, [source])[0]}")
    for source in dev["zh"][:3]:
        holes = source[:2] + "<mask>" + source[4:]
        typer.echo(f"{holes} → {translate(model, tokenizer, [holes])[0]}")


if __name__ == "__main__":
    typer.run(main)
