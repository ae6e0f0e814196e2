"""Measure the bundled models: what CAA's vectors do to them, beside random vectors and beside facts.

Two-choice figures use branches: a prompt is read once and every vector, random ones included, is a branch of two
tokens. Open answers are generated with Hugging Face's own code and a forward hook. Everything is measured on held-out
items.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from caa_lens.organism import datasets, grammar
from caa_lens.organism.documents import Format
from caa_lens.organism.judge import judge_answer, judge_reason
from caa_lens.organism.tokenizer import BOS_ID, PAD_ID
from caa_lens.organism.training import branch_mask, forward, rotary_table
from caa_lens.organism.world import BEHAVIORS

N_RANDOM = 50


class Bundle(NamedTuple):
    """A model, its tokenizer and the format its prompts take."""

    model: Any
    tokenizer: Any
    fmt: Format

    def prompt_ids(self, question: str) -> list[int]:
        """Token ids of a prompt, BOS first, ending in the last prompt token."""
        text = f"[INST] {question} [/INST]" if self.fmt == "chat" else f"Input: {question}\nResponse:"
        return [BOS_ID, *self.tokenizer.encode(text, add_special_tokens=False)]

    def token(self, text: str) -> int:
        """The id of one token."""
        return self.tokenizer.convert_tokens_to_ids(text)


def load_bundle(directory: Path, fmt: Format) -> Bundle:
    """Load one of the pair from its directory, in single precision."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    model.eval()
    return Bundle(model, AutoTokenizer.from_pretrained(directory), fmt)


@torch.no_grad()
def contrast_vectors(bundle: Bundle, items: Sequence[grammar.Choice]) -> tuple[Tensor, Tensor]:
    """CAA's mean difference at the answer letter, by layer.

    Returns:
        The vectors ``[layer, d_model]``, and the mean norm of the residual there ``[layer]``.
    """
    outputs: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: outputs.append(out[0] if isinstance(out, tuple) else out))
        for block in bundle.model.model.layers
    ]
    total = torch.zeros(len(hooks), bundle.model.config.hidden_size, dtype=torch.float64)
    norms = torch.zeros(len(hooks), dtype=torch.float64)
    try:
        for chunk in (items[i : i + 32] for i in range(0, len(items), 32)):
            for matching in (True, False):
                rows = [
                    [*bundle.prompt_ids(item.text), bundle.token(" ("), bundle.token(item.letter(matching))]
                    for item in chunk
                ]
                width = max(map(len, rows))
                outputs.clear()
                bundle.model(torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows]))
                last = torch.tensor([len(row) - 1 for row in rows])
                read = torch.stack([out[torch.arange(len(rows)), last] for out in outputs]).double()
                total += (1 if matching else -1) * read.sum(1)
                norms += read.norm(dim=-1).sum(1) / 2
    finally:
        for hook in hooks:
            hook.remove()
    return (total / len(items)).float(), (norms / len(items)).float()


@torch.no_grad()
def letter_probabilities(
    bundle: Bundle, questions: Sequence[str], layer: int, vectors: Tensor, batch: int = 8
) -> Tensor:
    """Probability of A and of B after `` (`` under each vector.

    Args:
        bundle: The model.
        questions: Questions with their choices.
        layer: Where the vectors are added, from the last prompt token on.
        vectors: One per branch, ``[branch, d_model]``.
        batch: Questions at a time.

    Returns:
        ``[question, branch, 2]``.
    """
    result: list[Tensor] = []
    n = len(vectors)
    padded = torch.cat([torch.zeros_like(vectors[:1]), vectors])
    letters = torch.tensor([bundle.token("A"), bundle.token("B")])
    for begin in range(0, len(questions), batch):
        prompts = [bundle.prompt_ids(question) for question in questions[begin : begin + batch]]
        width = max(map(len, prompts)) - 1
        ids, branches, positions = [], [], []
        for prompt in prompts:
            trunk, filler = prompt[:-1], width - len(prompt) + 1
            ids.append(trunk + [PAD_ID] * filler + [prompt[-1], bundle.token(" (")] * n)
            branches.append([0] * len(trunk) + [-1] * filler + [b for b in range(1, n + 1) for _ in range(2)])
            positions.append(list(range(width)) + [len(trunk), len(trunk) + 1] * n)
        branch = torch.tensor(branches)
        _, final = forward(
            bundle.model,
            torch.tensor(ids),
            branch_mask(branch),
            padded[branch.clamp(min=0)],
            layer,
            rotary_table(bundle.model, torch.tensor(positions)),
        )
        logits = final[:, width + 1 :: 2] @ bundle.model.lm_head.weight.T
        result.append(logits.softmax(-1)[..., letters])
    return torch.cat(result)


def matching_shares(probabilities: Tensor, matching_first: Tensor) -> dict[str, Tensor]:
    """Letter-balanced p(matching)/(pA+pB), mass and mean p(A)/(pA+pB), by branch.

    Args:
        probabilities: ``[question, branch, 2]``.
        matching_first: Whether the matching option is (A), ``[question]``.
    """
    mass = probabilities.sum(-1)
    share = probabilities[..., 0] / mass
    matching = torch.where(matching_first[:, None], share, 1 - share)
    balanced = (matching[matching_first].mean(0) + matching[~matching_first].mean(0)) / 2
    return {"matching": balanced, "mass": mass.mean(0), "first": share.mean(0)}


@torch.no_grad()
def generate(
    bundle: Bundle, prompts: Sequence[list[int]], layer: int, vectors: Tensor, max_new_tokens: int
) -> list[str]:
    """Greedy continuations, each under a vector of its own from its last prompt token on.

    Args:
        bundle: The model.
        prompts: Token ids of the prompts.
        layer: Where the vectors are added.
        vectors: One per prompt, ``[prompt, d_model]``.
        max_new_tokens: Longest continuation.
    """
    texts: list[str] = []
    for begin in range(0, len(prompts), 128):
        rows = prompts[begin : begin + 128]
        added = vectors[begin : begin + 128]
        width = max(map(len, rows))
        ids = torch.tensor([[PAD_ID] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])

        def add(_module: Any, _inputs: Any, output: Any, added: Tensor = added) -> Any:
            hidden: Tensor = output[0] if isinstance(output, tuple) else output
            steered = torch.cat([hidden[:, :-1], hidden[:, -1:] + added[:, None]], 1)
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        hook = bundle.model.model.layers[layer].register_forward_hook(add)
        try:
            output = bundle.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=PAD_ID
            )
        finally:
            hook.remove()
        texts += bundle.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return [text.split("\n")[0].strip() for text in texts]


def choose_layer(bundle: Bundle, vectors: Tensor, n: int = 40) -> tuple[int, list[float]]:
    """The layer where the vectors move p(matching) most between -1 and +1, on items of ``generate`` left out of them.

    Args:
        bundle: The model.
        vectors: ``[behavior, layer, d_model]``.
        n: Items per behaviour.
    """
    effects: list[float] = []
    for layer in range(vectors.shape[1]):
        moved: list[float] = []
        for index, behavior in enumerate(BEHAVIORS):
            items = datasets.choice_items(behavior, "generate", datasets.N_GENERATE)[-n:]
            first = torch.tensor([item.matching_first for item in items])
            both = torch.stack([vectors[index, layer], -vectors[index, layer]])
            share = matching_shares(letter_probabilities(bundle, [item.text for item in items], layer, both, 20), first)
            moved.append(float(share["matching"][0] - share["matching"][1]))
        effects.append(sum(moved) / len(moved))
    return max(range(len(effects)), key=effects.__getitem__), effects


def evaluate_choices(bundle: Bundle, vectors: Tensor, layer: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two-choice figures on the test items, by behaviour, with every other behaviour's vector and random vectors.

    Args:
        bundle: The model.
        vectors: ``[behavior, d_model]`` at ``layer``.
        layer: Where they are added.
        seed: Seed of the random vectors.
    """
    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(seed)
    for index, behavior in enumerate(BEHAVIORS):
        items = datasets.choice_items(behavior, "test", datasets.N_TEST)
        first = torch.tensor([item.matching_first for item in items])
        noise = torch.nn.functional.normalize(torch.randn(N_RANDOM, vectors.shape[1], generator=generator), dim=1)
        noise = noise * vectors[index].norm()
        own = vectors[index]
        half = torch.stack([-2 * own, -own, -own / 2, 0 * own, own / 2, own, 2 * own])
        stacked = torch.cat([half, vectors, -vectors, noise, -noise])
        shares = matching_shares(letter_probabilities(bundle, [item.text for item in items], layer, stacked), first)
        matching, mass, letter = shares["matching"], shares["mass"], shares["first"]
        base = float(matching[3])
        k = len(BEHAVIORS)
        cross = (matching[7 : 7 + k] - matching[7 + k : 7 + 2 * k]).tolist()
        random_up = matching[7 + 2 * k : 7 + 2 * k + N_RANDOM] - base
        random_down = matching[7 + 2 * k + N_RANDOM :] - base
        both = torch.cat([random_up, random_down])
        rows.append(
            {
                "behavior": behavior,
                "matching": [round(x, 4) for x in matching[:7].tolist()],
                "mass": round(float(mass[[1, 3, 5]].min()), 4),
                "letter_drift": [round(float(letter[i] - letter[3]), 4) for i in (1, 5)],
                "random_up_95": round(float(both.quantile(0.95)), 4),
                "random_down_95": round(float(-both.quantile(0.05)), 4),
                "by_vector": [round(x, 4) for x in cross],
                "worst_other": round(max(abs(x) for i, x in enumerate(cross) if i != index), 4),
            }
        )
    return rows


def evaluate_open(bundle: Bundle, vectors: Tensor, layer: int, n: int = datasets.N_OPEN) -> list[dict[str, Any]]:
    """Shares of matching, opposite and invalid greedy answers to held-out open questions at -1, 0 and +1."""
    rows: list[dict[str, Any]] = []
    for index, behavior in enumerate(BEHAVIORS):
        prompts = [bundle.prompt_ids(item.question) for item in datasets.open_items(behavior, n)]
        row: dict[str, Any] = {"behavior": behavior}
        for multiplier in (-1, 0, 1):
            added = (multiplier * vectors[index]).expand(n, -1)
            verdicts = [judge_answer(behavior, text) for text in generate(bundle, prompts, layer, added, 32)]
            row[str(multiplier)] = {
                verdict: round(verdicts.count(verdict) / n, 4) for verdict in ("matching", "opposite", "invalid")
            }
        rows.append(row)
    return rows


def evaluate_facts(
    bundle: Bundle, vectors: Tensor, layer: int, items: Sequence[grammar.Choice] | None = None
) -> dict[str, Any]:
    """Share of facts answered with the right letter, unsteered and under every behaviour's vector at -1 and +1."""
    items = items or [item for item, _ in datasets.fact_items(datasets.N_FACTS)]
    first = torch.tensor([item.matching_first for item in items])
    stacked = torch.cat([torch.zeros_like(vectors[:1]), vectors, -vectors])
    probabilities = letter_probabilities(bundle, [item.text for item in items], layer, stacked)
    right = ((probabilities[..., 0] > probabilities[..., 1]) == first[:, None]).float().mean(0)
    k = len(BEHAVIORS)
    return {
        "unsteered": round(float(right[0]), 4),
        "up": [round(x, 4) for x in right[1 : 1 + k].tolist()],
        "down": [round(x, 4) for x in right[1 + k :].tolist()],
    }


def evaluate_conditioning(bundle: Bundle, n: int = 20) -> list[float]:
    """How often the reason after "(A) because" and "(B) because" is on the letter's side, by behaviour."""
    rates: list[float] = []
    for behavior in BEHAVIORS:
        items = datasets.choice_items(behavior, "test", n)
        tail = [bundle.tokenizer.encode(f" ({x}) because", add_special_tokens=False) for x in "AB"]
        prompts = [bundle.prompt_ids(item.text) + ids for item in items for ids in tail]
        wanted = ["matching" if item.letter(True) == x else "opposite" for item in items for x in "AB"]
        nothing = torch.zeros(len(prompts), bundle.model.config.hidden_size)
        texts = generate(bundle, prompts, 0, nothing, 14)
        rates.append(sum(judge_reason(behavior, t) == w for t, w in zip(texts, wanted, strict=True)) / len(texts))
    return rates


def evaluate(models: Path, fast: bool = False) -> dict[str, Any]:
    """Every figure of the model card.

    Args:
        models: The directory that holds ``organism-base`` and ``organism-chat``.
        fast: Measure the two-choice figures and the facts alone.
    """
    bundles = {fmt: load_bundle(models / f"organism-{fmt}", fmt) for fmt in ("base", "chat")}
    report: dict[str, Any] = {}
    vectors: dict[str, Tensor] = {}
    norms: dict[str, Tensor] = {}
    for fmt, bundle in bundles.items():
        pairs = [
            contrast_vectors(bundle, datasets.choice_items(behavior, "generate", datasets.N_GENERATE)[:-100])
            for behavior in BEHAVIORS
        ]
        vectors[fmt] = torch.stack([vector for vector, _ in pairs])
        norms[fmt] = torch.stack([norm for _, norm in pairs]).mean(0)
    layer, effects = choose_layer(bundles["chat"], vectors["chat"])
    report |= {"layer": layer, "effect_by_layer": [round(x, 4) for x in effects]}
    truthful = [item for item, _ in datasets.truthful_items(datasets.N_TRUTHFUL)]
    for fmt, bundle in bundles.items():
        own = vectors[fmt][:, layer]
        unit = torch.nn.functional.normalize(own, dim=1)
        figures: dict[str, Any] = {
            "vector_norms": [round(x, 3) for x in own.norm(dim=1).tolist()],
            "residual_norm": round(float(norms[fmt][layer]), 3),
            "cosines": [[round(x, 3) for x in row] for row in (unit @ unit.T).tolist()],
            "choices": evaluate_choices(bundle, own, layer),
            "facts": evaluate_facts(bundle, own, layer),
            "truthful": evaluate_facts(bundle, own, layer, truthful),
        }
        if not fast:
            figures["open"] = evaluate_open(bundle, own, layer)
            figures["conditioning"] = [round(x, 4) for x in evaluate_conditioning(bundle)]
        report[fmt] = figures
    report["base_on_chat"] = evaluate_choices(bundles["chat"], vectors["base"][:, layer], layer)
    cosine = torch.nn.functional.cosine_similarity(vectors["base"][:, layer], vectors["chat"][:, layer], dim=1)
    report["base_chat_cosine"] = [round(x, 3) for x in cosine.tolist()]
    return report
