"""What fits a base: positions of its table, ids of its vocabulary, padding, and what an adapter takes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as t
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from all_families import DEBERTA, DISTILBERT, OPT, STACKS, T5, TEXT
from families import COMMON, PAD, VOCABULARY, base, randomised
from graftune.errors import GraftuneError
from graftune.methods import LoRA, PrefixTuning, PromptTuning, PTuning
from graftune.model.adapted import AdaptedModel
from methods_under_test import disturb

N = 16
SMALL: dict[str, Any] = {**TEXT, "max_position_embeddings": N}
STACK: dict[str, Any] = {**STACKS, "max_position_embeddings": N}
GPTJ: dict[str, Any] = {**COMMON, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": N, "rotary_dim": 4}
BLOOM: dict[str, Any] = {**COMMON, "hidden_size": 32, "n_layer": 2, "n_head": 4}

#: Class, config, and the longest text that the base itself can read (None: any).
TABLES: dict[str, tuple[type[PreTrainedModel], Any, int | None]] = {
    "gpt2": (t.GPT2LMHeadModel, t.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=N, **COMMON), N),
    "bert": (t.BertForMaskedLM, t.BertConfig(**SMALL), N),
    "distilbert": (
        t.DistilBertForMaskedLM,
        t.DistilBertConfig(**COMMON, **{**DISTILBERT, "max_position_embeddings": N}),
        N,
    ),
    "roberta": (t.RobertaForMaskedLM, t.RobertaConfig(**SMALL), N - PAD - 1),
    "xlm-roberta": (t.XLMRobertaForMaskedLM, t.XLMRobertaConfig(**SMALL), N - PAD - 1),
    "mpnet": (t.MPNetForMaskedLM, t.MPNetConfig(**SMALL), N - PAD - 1),
    "opt": (t.OPTForCausalLM, t.OPTConfig(**{**SMALL, **OPT}), N),
    "clip-text": (t.CLIPTextModelWithProjection, t.CLIPTextConfig(**SMALL, projection_dim=16), N),
    "bart": (t.BartForConditionalGeneration, t.BartConfig(**STACK), N),
    "marian": (t.MarianMTModel, t.MarianConfig(**STACK), N),
    "gpt-j": (t.GPTJForCausalLM, t.GPTJConfig(**GPTJ), N),
    "bloom": (t.BloomForCausalLM, t.BloomConfig(**BLOOM), None),
    "t5": (t.T5ForConditionalGeneration, t.T5Config(**T5, decoder_start_token_id=1), None),
    "deberta": (t.DebertaV2ForMaskedLM, t.DebertaV2Config(**{**SMALL, **DEBERTA}), None),
}


def text(length: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def run(model: Callable[..., Any], length: int, paired: bool, **options: Any) -> Any:
    targets = {"decoder_input_ids": text(3)} if paired else {}
    with torch.no_grad():
        return model(input_ids=text(length), **targets, **options)


@pytest.mark.parametrize("name", TABLES)
def test_positions_are_those_that_the_base_can_read(name: str) -> None:
    model_class, config, limit = TABLES[name]
    plain = randomised(model_class, config)
    model = AdaptedModel(plain)
    assert model.positions == model.room(None) == limit
    paired = plain.config.is_encoder_decoder
    run(plain, N * 3 if limit is None else limit, paired)  # the base itself
    run(model, N * 3 if limit is None else limit, paired, adapters=None)
    if limit is None:
        return
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        run(plain, limit + 1, paired)
    with pytest.raises(GraftuneError, match=rf"longer than the base has positions(.|\n)*at most {limit} "):
        run(model, limit + 1, paired, adapters=None)


@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_rotated_positions_are_those_of_the_config(family: str) -> None:
    model = AdaptedModel(base(family))
    assert model.positions == 128
    with pytest.raises(GraftuneError, match="at most 128 positions"):
        model(input_ids=text(129))
    model.base.config.max_position_embeddings = 64
    assert AdaptedModel(model.base).positions == 64


def test_targets_have_positions_of_their_own() -> None:
    model_class, config, _ = TABLES["bart"]
    model = AdaptedModel(randomised(model_class, config))
    assert model.target_positions == N
    for targets in ({"decoder_input_ids": text(N + 1)}, {"labels": text(N + 1)}):
        with pytest.raises(GraftuneError, match="the target is longer than the base has positions"):
            model(input_ids=text(3), **targets)
    with pytest.raises(GraftuneError, match="the target is longer"):
        model.generate(input_ids=text(3), max_new_tokens=N + 4, min_new_tokens=N + 4)


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta", "bart"])
def test_virtual_tokens_take_positions(name: str) -> None:
    model_class, config, limit = TABLES[name]
    assert limit is not None
    model = AdaptedModel(randomised(model_class, config))
    paired = model.base.config.is_encoder_decoder
    model.add("a", PromptTuning(length=5))
    assert model.room("a") == limit - 5
    run(model, limit - 5, paired, adapters="a")
    with pytest.raises(GraftuneError, match=rf"5 of them virtual tokens(.|\n)*cut it to {limit - 5} tokens"):
        run(model, limit - 4, paired, adapters="a")


@pytest.mark.parametrize("name", ["gpt2", "roberta"])
def test_a_shift_takes_positions(name: str) -> None:
    model_class, config, limit = TABLES[name]
    assert limit is not None
    model = AdaptedModel(randomised(model_class, config))
    model.add("a", PrefixTuning(length=4, reparameterize=False, shift_positions=True))
    assert model.room("a") == limit - 4
    run(model, limit - 4, False, adapters="a")
    with pytest.raises(GraftuneError, match=rf"4 of them skipped(.|\n)*cut it to {limit - 4} tokens"):
        run(model, limit - 3, False, adapters="a")
    with pytest.raises(GraftuneError, match="skipped"):
        model(inputs_embeds=torch.zeros(1, limit - 3, 32), adapters="a")


def test_an_unknown_adapter_has_no_room() -> None:
    with pytest.raises(GraftuneError, match="unknown adapter"):
        AdaptedModel(base("gpt2")).room("b")


def test_writing_past_the_last_position_is_an_error() -> None:
    model_class, config, _ = TABLES["gpt2"]
    model = AdaptedModel(randomised(model_class, config))
    write = {"do_sample": False, "pad_token_id": PAD}
    assert model.generate(text(10), max_new_tokens=6, min_new_tokens=6, **write).shape == (1, 16)
    with pytest.raises(GraftuneError, match="at most 16 positions"):
        model.generate(text(10), max_new_tokens=8, min_new_tokens=8, **write)
    with pytest.raises(GraftuneError, match="at most 16 positions"):
        model.generate(text(17), max_new_tokens=1, **write)


def test_padding_in_front_takes_no_positions() -> None:
    model_class, config, _ = TABLES["gpt2"]
    model = AdaptedModel(randomised(model_class, config))
    ids, mask = text(20), torch.ones(1, 20, dtype=torch.long)
    mask[:, :6] = 0
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, 6:]
        torch.testing.assert_close(logits, model.base(input_ids=ids[:, 6:]).logits, atol=1e-5, rtol=1e-5)


# Ids outside the vocabulary ------------------------------------------------------------------------------------

BASES = ["gpt2", "llama", "bert", "modernbert"]


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(BASES),
    padding=st.sampled_from([-1, VOCABULARY, VOCABULARY + 1, VOCABULARY + 900]),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    left=st.booleans(),
    data=st.data(),
)
def test_padding_outside_the_vocabulary_is_padding(
    family: str, padding: int, lengths: list[int], left: bool, data: st.DataObject
) -> None:
    model = BUILT.setdefault(family, made(family))
    names = [data.draw(st.sampled_from([None, "lora", "prompt"])) for _ in lengths]
    width = max(lengths)
    ids, mask = torch.full((len(lengths), width), padding), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        span = slice(width - n, width) if left else slice(0, n)
        ids[row, span], mask[row, span] = text(6)[0, :n], 1
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, adapters=names).logits
        for row, name in enumerate(names):
            alone = model(input_ids=ids[row : row + 1, mask[row].bool()], adapters=name).logits[0]
            torch.testing.assert_close(logits[row, mask[row].bool()], alone, atol=1e-5, rtol=1e-5)


def made(family: str) -> AdaptedModel:
    model = AdaptedModel(base(family))
    model.add("lora", LoRA(rank=2), seed=0)
    model.add("prompt", PromptTuning(length=3), seed=0)
    disturb(model, "lora")
    disturb(model, "prompt")
    return model


BUILT: dict[str, AdaptedModel] = {}


@pytest.mark.parametrize("id", [VOCABULARY, VOCABULARY + 7, -1])
@pytest.mark.parametrize("adapters", [None, "lora"])
def test_a_token_that_the_embedding_lacks_is_an_error(adapters: str | None, id: int) -> None:
    model = made("llama")
    ids = torch.tensor([[5, 6, 7], [5, id, 7]])
    for call in (model, model.generate):
        with pytest.raises(
            GraftuneError, match=r"more tokens than the base's embedding has rows(.|\n)*row 1, column 1"
        ):
            call(input_ids=ids, attention_mask=torch.ones_like(ids), adapters=adapters)


@pytest.mark.parametrize("padding", [-1, VOCABULARY + 3])
def test_a_text_that_ended_is_not_padded_with_a_token_that_the_embedding_lacks(padding: int) -> None:
    model = made("llama")
    ids = text(4, rows=4)
    free = model.base.generate(ids, do_sample=False, max_new_tokens=8, min_new_tokens=8, pad_token_id=PAD)
    end = int(free[0, 5])  # so that a row ends before the others
    written = model.generate(ids, do_sample=False, max_new_tokens=8, eos_token_id=end, pad_token_id=padding)
    expected = model.base.generate(ids, do_sample=False, max_new_tokens=8, eos_token_id=end, pad_token_id=end)
    assert torch.equal(written, expected)
    model.base.generation_config.pad_token_id = padding
    assert torch.equal(model.generate(ids, do_sample=False, max_new_tokens=8, eos_token_id=end), expected)


@pytest.mark.parametrize("padding", [None, -1, VOCABULARY])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_classifier_without_a_padding_token_reads_the_last_token_of_each_row(
    family: str, padding: int | None
) -> None:
    expected = base(family, classifier=True)
    model = AdaptedModel(base(family, classifier=True))
    model.base.config.pad_token_id = padding
    model.add("prompt", PromptTuning(length=3), seed=0)
    disturb(model, "prompt")
    ids, mask = text(6, rows=3), torch.ones(3, 6, dtype=torch.long)
    for row, length in enumerate((6, 3, 4)):
        ids[row, length:], mask[row, length:] = VOCABULARY if padding is None else padding, 0
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, adapters=[None, None, "prompt"]).logits
        for row in range(3):
            own = ids[row : row + 1, mask[row].bool()]
            alone = model(input_ids=own, adapters="prompt").logits if row == 2 else expected(input_ids=own).logits
            torch.testing.assert_close(logits[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    assert model.base.config.pad_token_id == padding


def test_virtual_tokens_behind_a_text_that_begins_with_the_padding_token() -> None:
    """Their place must not look like padding to a classifier, which reads the last token that is none."""
    model = AdaptedModel(base("gpt2", classifier=True))
    model.add("a", PTuning(pattern="{input}{P:2}"), seed=0)
    disturb(model, "a")
    ids = torch.tensor([[PAD, 5, 6, VOCABULARY, VOCABULARY + 1]])
    table = model.base.get_input_embeddings().weight
    model.adapter("a").refresh()
    rows = next(iter(model.adapter("a").parts.values())).table()
    with torch.no_grad():
        states = model.base.transformer(inputs_embeds=torch.cat([table[ids[0, :3]], rows])[None]).last_hidden_state
        torch.testing.assert_close(model(input_ids=ids, adapters="a").logits[0], model.base.score(states[0, -1]))


# What a batch with virtual tokens may hold ---------------------------------------------------------------------


def test_labels_that_are_shifted_already_skip_the_virtual_tokens() -> None:
    model = made("llama")
    ids = text(6, rows=2)
    shifted = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    with torch.no_grad():
        labels = ids.clone().index_fill(1, torch.tensor([0]), -100)  # which the last virtual token would predict
        expected = model(input_ids=ids, labels=labels, adapters="prompt").loss
        loss = model(input_ids=ids, labels=ids, shift_labels=shifted, adapters="prompt").loss
    torch.testing.assert_close(loss, expected)


def test_chosen_columns_of_logits_are_the_callers() -> None:
    model = made("llama")
    ids = text(6, rows=2)
    with torch.no_grad():
        full = model(input_ids=ids, adapters="prompt").logits
        chosen = model(input_ids=ids, logits_to_keep=torch.tensor([0, 3]), adapters="prompt").logits
    torch.testing.assert_close(chosen, full[:, [0, 3]])


def test_a_tuple_holds_what_the_names_hold() -> None:
    model = made("gpt2")
    ids = text(6, rows=2)
    with torch.no_grad():
        expected = model(input_ids=ids, adapters="prompt").logits
        given = model(input_ids=ids, adapters="prompt", return_dict=False)
    assert isinstance(given, tuple)
    assert torch.equal(given[0], expected)


def test_a_mask_of_pairs_is_refused_beside_virtual_tokens() -> None:
    model = made("gpt2")
    mask = torch.ones(2, 1, 6, 6)
    with pytest.raises(GraftuneError, match="a mask with one entry per token"):
        model(input_ids=text(6, rows=2), attention_mask=mask, adapters="prompt")


@pytest.mark.parametrize("where", ["given", "base"])
def test_a_length_in_the_settings_counts_the_callers_tokens(where: str) -> None:
    model = made("llama")
    config = t.GenerationConfig(max_length=10, min_length=10, do_sample=False, pad_token_id=PAD, eos_token_id=0)
    if where == "base":
        model.base.generation_config = config
    options = {"generation_config": config} if where == "given" else {}
    assert model.generate(text(4), adapters="prompt", **options).shape == (1, 10)
    assert config.max_length == 10


# Arguments in their places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BASES)
def test_inputs_may_be_given_by_place(family: str) -> None:
    model = made(family)
    ids, mask = text(5, rows=2), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, adapters="lora").logits
        second = (None,) if family == "gpt2" else ()  # GPT-2 takes its cache second
        assert torch.equal(model(ids, *second, mask, adapters="lora").logits, expected)
    with pytest.raises(TypeError, match="input_ids"):
        model(ids, input_ids=ids)
    with pytest.raises(TypeError, match="positional"):
        model(*[None] * 40)


@pytest.mark.parametrize("adapters", [None, "lora", "prompt"])
def test_writing_takes_its_inputs_as_the_base_does(adapters: str | None) -> None:
    model = made("llama")
    ids = text(5, rows=2)
    write: dict[str, Any] = {"adapters": adapters, "max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD}
    expected = model.generate(input_ids=ids, **write)
    assert torch.equal(model.generate(ids, **write), expected)
    assert torch.equal(model.generate(inputs=ids, **write), expected)
    settings = t.GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=PAD, bos_token_id=0, eos_token_id=0)
    assert torch.equal(model.generate(ids, settings, adapters=adapters), expected)
    assert torch.equal(model.generate(**write), model.generate(torch.tensor([[0]]), **write))
    if adapters is None:
        plain = {name: value for name, value in write.items() if name != "adapters"}
        assert torch.equal(model.generate(**write), model.base.generate(**plain))
        assert torch.equal(model.generate(ids, **write), model.base.generate(ids, **plain))


def test_writing_from_nothing_needs_a_first_token() -> None:
    model = made("llama")
    assert model.generate(adapters=["lora", None], max_new_tokens=3).shape[0] == 2
    model.base.generation_config.bos_token_id = None
    with pytest.raises(GraftuneError, match="nothing to start from"):
        model.generate(adapters="lora")


def test_embeddings_stand_for_ids_that_are_none() -> None:
    model = made("llama")
    ids = text(5, rows=2)
    embedded = model.base.get_input_embeddings()(ids)
    write: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": PAD, "adapters": "lora"}
    with torch.no_grad():
        expected = model(ids, adapters="lora").logits
        given = model(input_ids=None, inputs_embeds=embedded, adapters="lora").logits
    torch.testing.assert_close(given, expected)
    written = model.generate(ids, **write)[:, 5:]
    assert torch.equal(model.generate(input_ids=None, inputs_embeds=embedded, **write), written)
    assert torch.equal(model.generate(inputs_embeds=embedded, **write), written)


def test_positions_of_embeddings_are_shifted_as_those_of_ids() -> None:
    model = made("llama")
    model.add("shifted", PrefixTuning(length=4, reparameterize=False, shift_positions=True), seed=0)
    disturb(model, "shifted")
    ids = text(5, rows=2)
    embedded = model.base.get_input_embeddings()(ids)
    write: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": PAD, "adapters": "shifted"}
    with torch.no_grad():
        expected = model(ids, adapters="shifted").logits
        torch.testing.assert_close(model(inputs_embeds=embedded, adapters="shifted").logits, expected)
    assert torch.equal(model.generate(inputs_embeds=embedded, **write), model.generate(ids, **write)[:, 5:])


def test_an_encoder_decoder_takes_its_inputs_as_the_base_does() -> None:
    model_class, config, _ = TABLES["bart"]
    model = AdaptedModel(randomised(model_class, config))
    ids = text(5, rows=2)
    write: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    expected = model.base.generate(ids, **write)
    assert torch.equal(model.generate(ids, **write), expected)
    encoded = model.base.get_encoder()(ids)
    assert torch.equal(
        model.generate(encoder_outputs=encoded, **write), model.base.generate(encoder_outputs=encoded, **write)
    )
    assert torch.equal(model.generate(**write), model.base.generate(**write))
