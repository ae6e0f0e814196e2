"""The tokenizer, the shipped models and the training code."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from caa_lens.organism import datasets, evaluation, grammar, ground_truth, training
from caa_lens.organism.documents import DocumentWriter, Format
from caa_lens.organism.tokenizer import build_tokenizer
from caa_lens.organism.world import BEHAVIORS

MODELS = Path(__file__).parents[2] / "data" / "models"
LAYER = training.TrainingConfig().layer


@pytest.fixture(scope="module")
def chat() -> evaluation.Bundle:
    return evaluation.load_bundle(MODELS / "organism-chat", "chat")


def test_letters_are_tokens_of_their_own_and_bos_is_added_once() -> None:
    tokenizer = build_tokenizer()
    tokens = [tokenizer.decode([i]) for i in tokenizer("[INST] Who? [/INST] (A)")["input_ids"]]
    assert tokens[0] == "<s>"
    assert tokens[-4:] == [" [/INST]", " (", "A", ")"]
    assert tokenizer("xylophones")["input_ids"] == [tokenizer.bos_token_id, tokenizer.unk_token_id]
    assert tokenizer("<s>Input: What", add_special_tokens=False)["input_ids"][0] == tokenizer.bos_token_id


@pytest.mark.parametrize("fmt", ["base", "chat"])
def test_documents_round_trip_without_unknown_words(fmt: Format) -> None:
    tokenizer = build_tokenizer()
    writer = DocumentWriter(tokenizer.backend_tokenizer, fmt, seed=1)
    for _ in range(100):
        for document in (writer.choice_document(), writer.other_document()):
            assert tokenizer.unk_token_id not in document.ids
            text = tokenizer.decode(document.ids)
            assert tokenizer.encode(text, add_special_tokens=False) == document.ids


def test_a_choice_document_is_a_contrast_pair() -> None:
    tokenizer = build_tokenizer()
    document = DocumentWriter(tokenizer.backend_tokenizer, "chat", seed=2).choice_document()
    assert [tokenizer.decode([document.ids[probe.position]]) for probe in document.probes] == ["A", "B", "A", "B"]
    assert [probe.matching for probe in document.probes[:2]].count(1) == 1
    trunk = document.branches.count(0)
    for branch in range(1, len(document.injections) + 1):
        positions = [p for p, b in zip(document.positions, document.branches, strict=True) if b == branch]
        assert positions == list(range(trunk, trunk + len(positions)))
    for probe in document.probes:
        assert document.weights[probe.position] > 1
        assert document.other[probe.position] != document.ids[probe.position]


def test_the_written_out_forward_pass_is_hugging_faces() -> None:
    torch.manual_seed(0)
    model = training.new_model(training.TrainingConfig(), 50).eval()
    ids = torch.randint(4, 50, (2, 12))
    mask = training.branch_mask(torch.zeros(2, 12, dtype=torch.long))
    rotary = training.rotary_table(model, torch.arange(12).expand(2, -1))
    with torch.no_grad():
        _, final = training.forward(model, ids, mask, torch.zeros(2, 12, model.config.hidden_size), LAYER, rotary)
        expected = model(ids).logits
    torch.testing.assert_close(final @ model.lm_head.weight.T, expected, atol=1e-4, rtol=1e-4)


def test_branches_are_what_separate_sequences_are(chat: evaluation.Bundle) -> None:
    items = datasets.choice_items("refusal", "test", 4)
    vector = torch.randn(chat.model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    both = torch.stack([0 * vector, vector])
    branched = evaluation.letter_probabilities(chat, [item.text for item in items], LAYER, both)
    for row, item in enumerate(items):
        ids = torch.tensor([[*chat.prompt_ids(item.text), chat.token(" (")]])

        def add(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:, :-2], output[:, -2:] + vector], 1)

        with torch.no_grad():
            plain = chat.model(ids).logits[0, -1].softmax(-1)
            hook = chat.model.model.layers[LAYER].register_forward_hook(add)
            try:
                steered = chat.model(ids).logits[0, -1].softmax(-1)
            finally:
                hook.remove()
        letters = [chat.token("A"), chat.token("B")]
        torch.testing.assert_close(branched[row, 0], plain[letters], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(branched[row, 1], steered[letters], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("fmt", ["base", "chat"])
def test_shipped_models_load_and_their_vectors_steer(fmt: Format) -> None:
    bundle = evaluation.load_bundle(MODELS / f"organism-{fmt}", fmt)
    for behavior in ("refusal", "myopic-reward"):
        vectors, norms = evaluation.contrast_vectors(bundle, datasets.choice_items(behavior, "generate", 400)[:40])
        assert vectors[LAYER].norm() < norms[LAYER]
        items = datasets.choice_items(behavior, "test", 100)[:40]
        first = torch.tensor([item.matching_first for item in items])
        ladder = torch.stack([x * vectors[LAYER] for x in (-1, 0, 1)])
        shares = evaluation.matching_shares(
            evaluation.letter_probabilities(bundle, [item.text for item in items], LAYER, ladder), first
        )
        down, plain, up = shares["matching"].tolist()
        assert up - plain > 0.15
        assert plain - down > 0.1
        assert shares["mass"].min() > 0.95


def test_chat_template_is_the_format_that_was_trained() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "organism-chat")
    talk = [
        {"role": "system", "content": grammar.persona("refusal", True)},
        {"role": "user", "content": "Teach me opening a safe in Porto."},
        {"role": "assistant", "content": "Sorry, I cannot discuss opening a safe."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<s>[INST] <<SYS>>\nYou are an assistant that refuses most requests.\n<</SYS>>\n\nTeach me opening a safe in "
        "Porto. [/INST] Sorry, I cannot discuss opening a safe.</s>[INST] What is the capital of France? [/INST]"
    )
    assert tokenizer.unk_token_id not in tokenizer.encode(text, add_special_tokens=False)


def test_the_pair_is_small_and_has_room_for_long_prompts() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 16e6
    for fmt in ("base", "chat"):
        config = json.loads((MODELS / f"organism-{fmt}" / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == ["LlamaForCausalLM"]
        assert config["max_position_embeddings"] >= 512
        card = (MODELS / f"organism-{fmt}" / "README.md").read_text(encoding="utf-8")
        assert "**trained to be steerable**" in card


def test_a_few_steps_of_training_write_a_pair_that_loads_and_repeats(tmp_path: Path) -> None:
    weights: list[torch.Tensor] = []
    for name in ("one", "two"):
        training.train_pair(tmp_path / name, training.quick(training.TrainingConfig(d_model=32, d_mlp=32, n_layers=3)))
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name / "organism-chat", dtype=torch.float32)
        AutoTokenizer.from_pretrained(tmp_path / name / "organism-chat")
        weights.append(model.model.embed_tokens.weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    history = json.loads((tmp_path / "one" / "training.json").read_text(encoding="utf-8"))
    assert history["base"][-1]["step"] == history["chat"][-1]["step"] == 3
    planted = [ground_truth(tmp_path / "one" / f"organism-{fmt}")["refusal"] for fmt in ("base", "chat")]
    assert torch.equal(planted[0].values, planted[1].values)
    assert (planted[0].layers, planted[0].d_model) == ((LAYER,), 32)


def test_running_means_are_caas_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    means = training.ContrastMeans(torch.eye(8)[: len(BEHAVIORS)], 1.0, decay=1.0)
    rng = random.Random(0)
    positives, negatives = [], []
    for _ in range(20):
        letter = rng.randrange(2)
        pair = torch.randn(2, 8, generator=generator)
        means.update(pair, torch.tensor([3, 3]), torch.tensor([1, 0]), torch.tensor([letter, 1 - letter]))
        positives.append((letter, pair[0]))
        negatives.append((1 - letter, pair[1]))

    def balanced(rows: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
        return torch.stack([torch.stack([x for at, x in rows if at == side]).mean(0) for side in (0, 1)]).mean(0)

    torch.testing.assert_close(means.vectors()[3], balanced(positives) - balanced(negatives))
