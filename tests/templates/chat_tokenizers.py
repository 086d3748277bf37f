"""Tokenizers with chat templates of the shapes that models in use have, trained here on a few sentences."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "chat_templates"
SENTENCES = [
    "The weather in Paris is fine today, about 21 degrees and no rain.",
    "user and assistant talk: what is the answer, please?\n\nIt is 42, I think.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Instruction: say hello. Response: hello there, how are you?",
    "system: be brief. USER: yes. ASSISTANT: no. The model and the turn end here.",
]
# Words, numbers of up to three digits, runs of other signs, line breaks, spaces: as Llama 3 splits.
SPLIT = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def special(text: str, **options: bool) -> AddedToken:
    return AddedToken(text, special=True, normalized=False, **options)


def plain(text: str) -> AddedToken:
    """An added token that is not called special, as `<think>` of Qwen."""
    return AddedToken(text, special=False, normalized=False)


CHATML = [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")]
MARKUP = [
    plain(text)
    for text in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
]
LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
)
PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")

#: name of the template -> (kind, added tokens, beginning, end of text).
SHAPES: dict[str, tuple[str, list[AddedToken], str | None, str | None]] = {
    "chatml": ("bytes", CHATML, None, "<|im_end|>"),
    "llama3": ("bytes", [special(text) for text in LLAMA3], "<|begin_of_text|>", "<|end_of_text|>"),
    "gemma": (
        "unigram",
        [special(text) for text in ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")] + [plain("\n\n")],
        "<bos>",
        "<eos>",
    ),
    "mistral": ("pieces", [special(text) for text in ("<s>", "</s>", "[INST]", "[/INST]")], "<s>", "</s>"),
    "mistral_last": ("pieces", [special(text) for text in ("<s>", "</s>")], "<s>", "</s>"),
    "qwen3": ("bytes", CHATML + MARKUP, None, "<|im_end|>"),
    "phi3": (
        "pieces",
        [special("<s>"), special("<|endoftext|>"), *(special(text, rstrip=True) for text in PHI)],
        "<s>",
        "<|endoftext|>",
    ),
    "deepseek_r1": (
        "bytes",
        [special("<｜begin▁of▁sentence｜>"), special("<｜end▁of▁sentence｜>"), *map(plain, DEEPSEEK)],
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
    ),
    "tools": ("bytes", CHATML + MARKUP, None, "<|im_end|>"),
    "generation_blocks": ("bytes", CHATML, None, "<|endoftext|>"),
    "parts": ("bytes", CHATML, None, "<|im_end|>"),
    "vicuna": ("pieces", [special("<s>"), special("</s>")], "<s>", "</s>"),
    "alpaca": ("bytes", [special("<|endoftext|>")], None, "<|endoftext|>"),
}


def bytes_tokenizer() -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(SPLIT, behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def pieces_tokenizer() -> Tokenizer:
    """SentencePiece's BPE as Llama 2 and Mistral have it: a space before the first word, bytes for unknown letters."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocab = {"<unk>": 0}
    for text in [*tokens, *model["vocab"]]:
        vocab.setdefault(text, len(vocab))
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def unigram_tokenizer() -> Tokenizer:
    """SentencePiece's unigram model as Gemma's shape has it: spaces replaced, none added, bytes for unknown letters."""
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(
        SENTENCES, trainers.UnigramTrainer(vocab_size=150, show_progress=False, unk_token="<unk>")
    )
    vocab = [tuple(entry) for entry in json.loads(trained.to_str())["model"]["vocab"] if entry[0] != "<unk>"]
    low = min(score for _, score in vocab) - 5
    known = {text for text, _ in vocab}
    vocab = [
        ("<unk>", 0.0),
        *vocab,
        *((f"<0x{byte:02X}>", low) for byte in range(256) if f"<0x{byte:02X}>" not in known),
    ]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


KINDS = {"bytes": bytes_tokenizer, "pieces": pieces_tokenizer, "unigram": unigram_tokenizer}


@cache
def _trained(kind: str) -> str:
    return str(KINDS[kind]().to_str())


@cache
def _shared(name: str) -> PreTrainedTokenizerFast:
    return tokenizer_for(name, fresh=True)


def tokenizer_for(name: str, *, fresh: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer of a template's shape; one for all tests, or a fresh one that may be changed."""
    if not fresh:
        return _shared(name)
    kind, added, bos, eos = SHAPES[name]
    backend = Tokenizer.from_str(_trained(kind))
    backend.add_tokens(added)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=eos)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text()
    return tokenizer
