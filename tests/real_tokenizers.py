"""Tokenizers of the types that people bring, trained here on a few sentences and loaded as a checkpoint's are."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100_CODES
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES

SENTENCES = (
    "Anna lives in Berlin, near the old museum, and works for the railway.",
    "The cheap seats were sold out; nobody's brother could get us two more.",
    "It was a terrible film: slow, loud and far too long!",
    "A movie as good as this one deserves another evening, doesn't it?",
    "In 1987 the river rose by 3.5 metres and the bridge was closed.",
    "Der kleine Hund läuft über die Straße und bellt die Müllabfuhr an.",
    "Grüße aus München, schöne Ferien und bis nächste Woche.",
    "Où est la bibliothèque? Elle est derrière l'école, à côté du marché.",
    "Мама мыла раму, а кошка спала на окне.",
    "我喜歡喝茶。他们在北京大学学习。",
    "これは短い文です。明日は雨が降るでしょう。",
    "السلام عليكم، كيف حالك اليوم؟",
    "def add(a, b):\n    return a + b  # 😀 smile",
    "caffè, naïve, résumé, Ångström, co-operate, e-mail@example.org",
)
#: How a tokenizer's name leads to the function that builds it.
TOKENIZERS: dict[str, Callable[[], Any]] = {}
_FOLDER = tempfile.TemporaryDirectory()  # lives as long as the tests: some tokenizers go on reading from it


def _real(build: Callable[[], Any]) -> Callable[[], Any]:
    """Register a function under its name and build its tokenizer once."""
    TOKENIZERS[build.__name__] = cache(build)
    return TOKENIZERS[build.__name__]


def _loaded(name: str, files: dict[str, Any], config: dict[str, Any]) -> Any:
    """What AutoTokenizer makes of a folder with a checkpoint's files, after it was saved and loaded once more."""
    first, second = (Path(_FOLDER.name) / f"{name}-{step}" for step in ("made", "saved"))
    first.mkdir()
    for file, content in {**files, "tokenizer_config.json": config}.items():
        (first / file).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    AutoTokenizer.from_pretrained(first).save_pretrained(second)
    return AutoTokenizer.from_pretrained(second)


def _saved(name: str, tokenizer: Any) -> Any:
    tokenizer.save_pretrained(folder := Path(_FOLDER.name) / name)
    return AutoTokenizer.from_pretrained(folder)


@cache
def _sentencepiece(kind: str, size: int, sentences: Sequence[str] = SENTENCES, **options: Any) -> bytes:
    """A SentencePiece model of at most `size` pieces: its own trainer, its own normaliser."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(8 * sentences),
        model_writer=written,
        model_type=kind,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


def _pieces(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.IdToPiece(i) for i in range(processor.GetPieceSize())]


def _byte_level(size: int, specials: Sequence[str], **options: Any) -> Tokenizer:
    """A byte-level BPE model as GPT-2 has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return tokenizer


def _vocabulary(tokenizer: Tokenizer) -> tuple[dict[str, int], str]:
    """vocab.json and merges.txt."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"])


@_real
def bert() -> Any:
    """WordPiece: [CLS] a [SEP] b [SEP], lower case, without accents and control characters, token types."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    words = "\n".join(sorted(vocabulary := tokenizer.get_vocab(), key=vocabulary.__getitem__))
    return _loaded("bert", {"vocab.txt": words.encode()}, {"tokenizer_class": "BertTokenizer"})


@_real
def gpt2() -> Any:
    """Byte-level BPE without special tokens around the text; <|endoftext|> is all three of bos, eos and unk."""
    vocabulary, merges = _vocabulary(_byte_level(420, ["<|endoftext|>"], add_prefix_space=False))
    return _loaded(
        "gpt2", {"vocab.json": vocabulary, "merges.txt": merges.encode()}, {"tokenizer_class": "GPT2Tokenizer"}
    )


def _roberta(name: str, **options: Any) -> Any:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary, merges = _vocabulary(_byte_level(420, specials, add_prefix_space=True))
    files = {"vocab.json": vocabulary, "merges.txt": merges.encode()}
    return _loaded(name, files, {"tokenizer_class": "RobertaTokenizer", **options})


@_real
def roberta() -> Any:
    """Byte-level BPE: <s> a </s></s> b </s>, and a mask that takes the space before it."""
    return _roberta("roberta")


@_real
def roberta_prefix() -> Any:
    """RoBERTa's with a space put before every text, as it is loaded for words that are split already."""
    return _roberta("roberta-prefix", add_prefix_space=True)


@_real
def modernbert() -> Any:
    """Byte-level BPE: [CLS] a [SEP] b [SEP] without token types; runs of spaces and marks are added tokens."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = _byte_level(420, specials, add_prefix_space=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    tokenizer.add_tokens([AddedToken("|||EMAIL_ADDRESS|||", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=False)])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return _saved(
        "modernbert",
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_input_names=["input_ids", "attention_mask"],
            **{f"{name}_token": token for name, token in names.items()},
        ),
    )


@_real
def llama3() -> Any:
    """Byte-level BPE with Llama 3's own splits, whole words before merges, and a first token."""
    tokenizer = _byte_level(420, [], add_prefix_space=False)
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(content))
    splits = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(splits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    first = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[first]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return _saved(
        "llama3",
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="<|begin_of_text|>",
            eos_token="<|eot_id|>",
            model_input_names=["input_ids", "attention_mask"],
        ),
    )


@_real
def llama2() -> Any:
    """SentencePiece BPE with bytes for what it does not know, a first token, and a space before the first word only."""
    model = _sentencepiece("bpe", 600, byte_fallback=True, normalization_rule_name="identity")
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    return _loaded("llama2", {"tokenizer.model": model}, config)


@_real
def t5() -> Any:
    """SentencePiece unigram: a </s> b </s>, with sentinels <extra_id_0>, ..."""
    model = _sentencepiece("unigram", 300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return _loaded("t5", {"spiece.model": model}, {"tokenizer_class": "T5Tokenizer"})


@_real
def xlm_roberta() -> Any:
    """SentencePiece unigram: <s> a </s></s> b </s>."""
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    return _loaded("xlm-roberta", {"sentencepiece.bpe.model": _sentencepiece("unigram", 300)}, config)


@_real
def mbart() -> Any:
    """SentencePiece unigram: a </s> and the language, in sources and in targets."""
    config = {"tokenizer_class": "MBartTokenizer", "src_lang": "en_XX", "tgt_lang": "ro_RO"}
    return _loaded("mbart", {"sentencepiece.bpe.model": _sentencepiece("unigram", 300)}, config)


@_real
def mbart50() -> Any:
    """SentencePiece unigram: the language, a and </s>."""
    config = {"tokenizer_class": "MBart50Tokenizer", "src_lang": "en_XX", "tgt_lang": "de_DE"}
    return _loaded("mbart50", {"sentencepiece.bpe.model": _sentencepiece("unigram", 300)}, config)


@_real
def nllb() -> Any:
    """SentencePiece BPE: the language, a and </s>; a mask that is looked for in normalised text."""
    config: dict[str, Any] = {"tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn", "tgt_lang": "fra_Latn"}
    config["additional_special_tokens"] = NLLB_CODES
    return _loaded("nllb", {"sentencepiece.bpe.model": _sentencepiece("bpe", 300)}, config)


@_real
def m2m100() -> Any:
    """SentencePiece read by Python: the language, a and </s>."""
    model = _sentencepiece("bpe", 300)
    words = ["<s>", "<pad>", "</s>", "<unk>", *_pieces(model)[3:], *(f"madeupword000{i}" for i in range(8))]
    files = {"sentencepiece.bpe.model": model, "vocab.json": {word: i for i, word in enumerate(words)}}
    config: dict[str, Any] = {"tokenizer_class": "M2M100Tokenizer", "src_lang": "en", "tgt_lang": "de"}
    config["additional_special_tokens"] = [f"__{code}__" for code in M2M100_CODES["m2m100"]]
    return _loaded("m2m100", files, config)


def _marian(name: str, separate: bool) -> Any:
    both = _sentencepiece("unigram", 150, SENTENCES[:5]), _sentencepiece("unigram", 150, SENTENCES[5:])
    source, target = map(_pieces, both)
    words = ["</s>", "<unk>", *source[3:], *([] if separate else [*target[3:], ">>fra<<", ">>deu<<"]), "<pad>"]
    files: dict[str, Any] = {
        "source.spm": both[0],
        "target.spm": both[1],
        "vocab.json": {word: i for i, word in enumerate(dict.fromkeys(words))},
    }
    if separate:
        targets = ["</s>", "<unk>", *reversed(target[3:]), "<pad>"]
        files["target_vocab.json"] = {word: i for i, word in enumerate(targets)}
    config = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": separate}
    return _loaded(name, files, config)


@_real
def marian() -> Any:
    """Two SentencePiece models, one vocabulary, read by Python: a </s>."""
    return _marian("marian", False)


@_real
def marian_separate() -> Any:
    """Two SentencePiece models with a vocabulary each, read by Python: a </s>."""
    return _marian("marian-separate", True)


@_real
def xlnet() -> Any:
    """SentencePiece unigram: a <sep> b <sep> <cls>, with token types 0, 1 and 2."""
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config = {"tokenizer_class": "XLNetTokenizer", "model_input_names": names}
    return _loaded("xlnet", {"spiece.model": _sentencepiece("unigram", 300)}, config)
