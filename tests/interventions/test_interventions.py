"""Any mixture of sites, operations and schedules equals one plain pass a text, however it is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny_models
import torch
from plain import Change, plain_changed, plain_logits
from torch import Tensor

import caa_lens as caa
from caa_lens.engine.answer_logprobs import answer_logprobs
from caa_lens.engine.branching import branch_logits
from caa_lens.engine.decoding import decoding
from caa_lens.engine.edits import Edit
from caa_lens.engine.packing import Branch
from caa_lens.evaluation.side_effects import side_effects
from caa_lens.interventions.interventions import Intervention
from caa_lens.interventions.operations import Ablate, Add, Clamp, Operation, Rotate, SetProjection
from caa_lens.interventions.schedules import Schedule, check_schedule, decaying, factor, first
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.steering.steering import edits_of
from caa_lens.vectors.vectors import Provenance, SteeringVector

PROMPTS = [[20, 7, 9, 30, 12], [20, 40], [20], [20, *range(41, 56)]]
"""Ragged, one of a single token, one longer than the sliding windows."""
TEXTS = ["hello there", "a", "one two three four five six seven eight nine ten eleven"]


def vector(layer: int = 1, seed: int = 0, scale: float = 2.0) -> SteeringVector:
    value = torch.randn(tiny_models.D_MODEL, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(value * scale, layer, Provenance.unknown("toy"), "toy")


def recipes() -> list[Any]:
    """One plain; every operation; other sites; several at one place and at many; schedules of every kind."""
    last = 2
    return [
        vector(),
        Intervention(vector(), operation=Ablate()),
        Intervention(vector(seed=1), 0.5, site="attn_out", operation=SetProjection(3.0)),
        Intervention(vector(), -1.0, site="resid_pre", schedule=first(2)),
        [Intervention(vector(last), operation=Clamp(high=-1.0)), vector(last, 3), Intervention(vector(last, 4), 2.0)],
        [Intervention(vector(seed=5), schedule=[1.0, -0.5, 0.0, 2.0]), Intervention(vector(), operation=Rotate(50.0))],
        [
            Intervention(vector(0), site="mlp_out"),
            Intervention(vector(0, 6), -1.0, schedule=decaying(1.5)),
            vector(last),
        ],
        [],
    ]


def changes_of(model: Any, recipe: Any, start: int) -> list[Change]:
    """What a recipe does, written out: from token ``start`` on, one intervention after another."""
    parts = [
        part if isinstance(part, Intervention) else Intervention(part)
        for part in (recipe if isinstance(recipe, list) else [recipe])
    ]

    def change(part: Intervention) -> Callable[[Tensor], Tensor]:
        def at_each(x: Tensor) -> Tensor:
            done = x.clone()
            for at in range(start, x.shape[1]):
                amount = part.multiplier * factor(part.schedule, at - start)
                done[:, at] = part.operation(x[:, at], part.vector.values, amount)
            return done

        return at_each

    return [(part.layer, part.site or part.vector.site, change(part)) for part in parts]


def assert_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=2e-4, rtol=0)


def test_branches_of_any_kind_equal_plain_passes(model: Any) -> None:
    adapter, tails = adapt(model), [(60, 61, 62, 63), (64,)]
    cells = [(prompt, tail, recipe) for prompt in range(len(PROMPTS)) for tail in tails for recipe in recipes()]
    branches = [Branch(prompt, tail, edits_of(adapter, recipe)) for prompt, tail, recipe in cells]
    found: dict[int, Tensor] = {}
    branch_logits(adapter, PROMPTS, branches, lambda chunk, rows: found.update(zip(chunk, rows, strict=True)))
    for index, (prompt, tail, recipe) in enumerate(cells):
        start = len(PROMPTS[prompt])
        expected = plain_changed(model, [*PROMPTS[prompt], *tail], changes_of(model, recipe, start))[-1]
        assert_alike(found[index], expected)


def test_a_job_of_plain_edits_is_packed_and_any_other_is_not(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, ways = adapt(bridge("llama")), []
    for name in ("extend", "extend_packed"):
        real = getattr(adapter, name)
        monkeypatch.setattr(adapter, name, lambda *args, name=name, real=real: ways.append(name) or real(*args))
    plain, at_end = edits_of(adapter, [vector(), vector(2)]), edits_of(adapter, Intervention(vector(), site="mlp_out"))
    rows: dict[str, dict[int, Tensor]] = {"packed": {}, "forked": {}}
    for name, of_second in (("packed", ()), ("forked", at_end)):
        branches = [Branch(0, (60, 61), plain), Branch(0, (60, 61), of_second)]
        branch_logits(
            adapter, PROMPTS, branches, lambda chunk, out, to=rows[name]: to.update(zip(chunk, out, strict=True))
        )
    assert ways == ["extend_packed", "extend"]
    assert_alike(rows["packed"][0], rows["forked"][0])


@pytest.mark.parametrize("use_cache", [True, False])
def test_decoding_equals_plain_passes_with_a_cache_and_without(model: Any, use_cache: bool) -> None:
    adapter = adapt(model)
    parents, ways = [0, 1, 2, 3, 1, 0, 2, 3], recipes()
    edits = [edits_of(adapter, recipe) for recipe in ways]
    fed = [[60 + row, 70 + row, 80 + row] for row in range(len(ways))]
    with decoding(adapter, PROMPTS, edits, parents=parents, use_cache=use_cache) as decoder:
        steps = [decoder.step(torch.tensor([PROMPTS[parent][-1] for parent in parents]))]
        steps.append(decoder.step(torch.tensor([tokens[0] for tokens in fed])))
        kept = [5, 0, 3, 6, 2, 4]
        decoder.keep(kept)
        late = [decoder.step(torch.tensor([fed[row][step] for row in kept])) for step in (1, 2)]
    for row, (parent, recipe) in enumerate(zip(parents, ways, strict=True)):
        prompt = PROMPTS[parent]
        expected = plain_changed(model, [*prompt, *fed[row]], changes_of(model, recipe, len(prompt) - 1))
        for step in (0, 1):
            assert_alike(steps[step][row], expected[len(prompt) - 1 + step])
        if row in kept:
            for step, logits in enumerate(late):
                assert_alike(logits[kept.index(row)], expected[len(prompt) + 1 + step])


def test_steer_equals_plain_passes_also_step_by_step_with_a_cache(model: Any) -> None:
    ids, new, end = [20, 7, 9, 30], [44, 45, 46], 3
    for recipe in recipes()[:-1]:
        changes = changes_of(model, recipe, end)
        with torch.no_grad(), caa.steer(model, recipe, positions=end):
            whole = model(torch.tensor([[*ids, *new]]), return_type="logits")[0]
        assert_alike(whole, plain_changed(model, [*ids, *new], changes))
        greedy = list(ids)
        for _ in range(4):
            greedy.append(int(plain_changed(model, greedy, changes)[-1].argmax()))
        with caa.steer(model, recipe):
            for _ in range(2):  # the second text begins anew
                out = model.generate(
                    torch.tensor([ids]), max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False
                )
                assert out[0].tolist() == greedy


def test_steer_counts_the_tokens_of_each_row(bridge: Any) -> None:
    """A schedule with a mask: the k-th true position of a row, not the k-th column."""
    model, v = bridge("llama"), vector()
    mask = torch.tensor([[False, True, False, True], [True, True, True, True]])
    tokens, schedule = torch.tensor([[20, 7, 9, 30]] * 2), [1.0, -2.0, 0.5]
    with torch.no_grad(), caa.steer(model, Intervention(v, schedule=schedule), positions=mask):
        found = model(tokens, return_type="logits")
    for row, factors in enumerate([[0.0, 1.0, 0.0, -2.0], [1.0, -2.0, 0.5, 0.5]]):
        added = torch.tensor(factors).unsqueeze(1) * v.values
        assert_alike(
            found[row],
            plain_changed(model, tokens[row].tolist(), [(1, "resid_post", lambda x, added=added: x + added)]),
        )


def test_generate_equals_plain_greedy_cached_and_uncached_together_and_alone(model: Any) -> None:
    adapter, ways = adapt(model), {str(place): recipe for place, recipe in enumerate(recipes()[3:])}
    kwargs: Any = {"max_new_tokens": 3, "prompt_format": "plain"}
    together = caa.generate(model, TEXTS, steer=ways, **kwargs)
    assert len({tuple(texts) for texts in together.values()}) > 2
    assert together == caa.generate(model, TEXTS, steer=ways, use_cache=False, **kwargs)
    assert together == caa.generate(model, TEXTS, steer=ways, batch_size=1, **kwargs)
    for name, recipe in ways.items():
        for text, found in zip(TEXTS, together[name], strict=True):
            ids = list(format_prompt(model, text, prompt_format="plain").ids)
            n, changes = len(ids), changes_of(model, recipe, len(ids) - 1)
            while len(ids) < n + 3:
                token = int(plain_changed(model, ids, changes)[-1].argmax())
                if token in adapter.stop_ids:
                    break
                ids.append(token)
            assert found == adapter.tokenizer.decode(ids[n:], skip_special_tokens=True)


OPERATIONS: list[Operation] = [Add(), Ablate(), SetProjection(2.0), Clamp(-0.1, 0.1), Rotate(60.0)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_multiplier_zero_is_bitwise_unsteered_in_every_way_of_running(operation: Operation, bridge: Any) -> None:
    model = bridge("gemma2")
    plain = plain_logits(model, PROMPTS[0])
    for site in ("resid_post", "resid_mid", "attn_out"):
        nothing = Intervention(vector(), 0.0, site=site, operation=operation)
        never = Intervention(vector(), site=site, operation=operation, schedule=[0.0])
        assert edits_of(adapt(model), nothing) == ()
        for recipe in (nothing, never):
            with torch.no_grad(), caa.steer(model, recipe, positions="all"):
                assert torch.equal(model(torch.tensor([PROMPTS[0]]), return_type="logits")[0].float(), plain)
            kwargs: Any = {"max_new_tokens": 3, "prompt_format": "plain"}
            assert caa.generate(model, TEXTS, steer=recipe, **kwargs) == caa.generate(model, TEXTS, **kwargs)
    # One row's zero beside another row's whole: bit for bit what the row is alone.
    adapter, tail = adapt(model), (60, 61)
    whole, never = (
        Intervention(vector(), operation=operation),
        Intervention(vector(), operation=operation, schedule=[0.0]),
    )
    found: dict[int, Tensor] = {}
    branches = [Branch(0, tail, edits_of(adapter, recipe)) for recipe in (never, whole, [never, whole], None)]
    branch_logits(adapter, PROMPTS, branches, lambda chunk, rows: found.update(zip(chunk, rows, strict=True)))
    if operation == Add():
        branches[1:3] = [Branch(0, tail, (Edit(1, vector().values, "mlp_out"),))] * 2
    assert torch.equal(found[0], found[3]) and torch.equal(found[1], found[2])
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_running_text_and_scores_take_any_intervention(model: Any) -> None:
    adapter, recipe = (
        adapt(model),
        [Intervention(vector(), operation=Ablate()), Intervention(vector(0), site="attn_out")],
    )
    frame = side_effects(model, {"a": recipe, "zero": Intervention(vector(), 0.0, operation=Ablate())}, TEXTS[::2])
    assert (frame.query("vector == 'zero'")["kl_max"] == 0).all()
    for row in frame.query("vector == 'a'").itertuples():
        ids = list(format_prompt(model, TEXTS[::2][row.document], prompt_format="plain").ids)
        logits = plain_changed(model, ids, changes_of(model, recipe, 1)).double().log_softmax(-1)[1:-1]
        nll = -logits.gather(1, torch.tensor(ids[2:]).unsqueeze(1)).mean()
        assert row.nll_steered == pytest.approx(float(nll), abs=1e-4)
    question, answer = PROMPTS[0], [60, 61, 62]
    for positions, start in (("prompt_end", len(question) - 1), ("all", 1)):
        ways = [edits_of(adapter, recipe), ()]
        ((steered,), _) = answer_logprobs(adapter, [(question, answer)], ways, positions=positions)
        logits = plain_changed(model, [*question, *answer[:-1]], changes_of(model, recipe, start))[-3:].log_softmax(-1)
        assert steered.logp == pytest.approx(float(sum(logits[i, token] for i, token in enumerate(answer))), abs=1e-3)


def test_a_sweep_takes_a_site_and_an_operation(bridge: Any) -> None:
    from caa_lens.vectors.vectors import SteeringVectors

    model = bridge("llama")
    items = caa.ContrastDataset.from_pairs([("Is it so?\n (A) yes\n (B) no", "(A)", "(B)"), ("a?", "(B)", "(A)")])
    vectors = SteeringVectors(torch.randn(4, tiny_models.D_MODEL), (0, 1, 2, 3), Provenance.unknown("toy"), "toy")
    frame = caa.sweep(
        model, vectors, items, layers=[1], n_nulls=0, multipliers=[0.0, 0.5, 1.0], site="attn_out", operation=Ablate()
    )
    for row in frame.itertuples():
        pair = items[row.item]
        both = [format_prompt(model, pair.prompt, answer) for answer in (pair.positive, pair.negative)]
        start, ids = both[0].position("prompt_end"), [text.ids for text in both]
        differ = next(i for i, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
        change = Intervention(vectors[1], row.multiplier, site="attn_out", operation=Ablate())
        logp = plain_changed(model, ids[0][:differ], changes_of(model, change, start))[-1].log_softmax(-1)
        found = [row.logp_matching, row.logp_other]
        assert found == pytest.approx([float(logp[tokens[differ]]) for tokens in ids], abs=2e-4)
    assert frame.groupby("multiplier")["logp_matching"].mean().nunique() == 3


def test_half_precision_goes_through_every_operation(tiny_path: Any) -> None:
    model: Any = caa.load_model(tiny_path("llama"), dtype="bfloat16")
    for operation in OPERATIONS:
        for site in ("resid_mid", "resid_post"):
            recipe = Intervention(vector(), 0.0 or 1.0, site=site, operation=operation, schedule=first(1))
            assert len(caa.generate(model, TEXTS, steer=recipe, max_new_tokens=2, prompt_format="plain")) == len(TEXTS)
            with torch.no_grad(), caa.steer(model, recipe):
                assert model(torch.tensor([PROMPTS[0]]), return_type="logits").dtype == torch.bfloat16


def test_no_hook_is_left_by_a_job_that_fails(model: Any) -> None:
    adapter = adapt(model)

    def broken(k: int) -> float:
        raise RuntimeError("mine")

    for use in (
        lambda recipe: caa.generate(model, TEXTS, steer=recipe, prompt_format="plain", max_new_tokens=2),
        lambda recipe: side_effects(model, {"a": recipe}, TEXTS[::2]),
        lambda recipe: branch_logits(adapter, PROMPTS, [Branch(0, (5,), edits_of(adapter, recipe))], lambda *_: None),
    ):
        with pytest.raises(RuntimeError, match="mine"):
            use(Intervention(vector(), site="resid_pre", schedule=broken))
        assert not tiny_models.attached_hooks(model)
        assert not any(block._forward_pre_hooks for block in adapter.blocks if hasattr(block, "hook_out"))


def test_errors_name_what_was_given(bridge: Any, unchecked: None) -> None:
    adapter = adapt(bridge("llama"))
    with pytest.raises(ValueError, match="vector 'toy' is zero at layer 1: it has no direction"):
        edits_of(adapter, Intervention(vector() * 0.0, operation=Ablate()))
    with pytest.raises(ValueError, match="schedule .*: give at least one factor, all of them finite"):
        Intervention(vector(), schedule=[])
    with pytest.raises(ValueError, match=r"schedule \[1.0, inf\]: give at least one factor"):
        Intervention(vector(), schedule=[1.0, math.inf])
    with pytest.raises(
        TypeError, match="schedule is float: give a list of factors, whose last one holds on, or a func"
    ):
        Intervention(vector(), schedule=0.5)
    with pytest.raises(TypeError, match="schedule is str"):
        check_schedule("decaying")
    with pytest.raises(ValueError, match="the schedule gives nan for steered token 0: factors are finite"):
        caa.generate(adapter.model, TEXTS, steer=Intervention(vector(), schedule=lambda k: math.nan))
    with pytest.raises(ValueError, match=r"first\(0\): at least one token is steered"):
        first(0)
    with pytest.raises(ValueError, match=r"decaying\(0\): the half-life is a positive number"):
        decaying(0)


def test_schedules() -> None:
    def of(schedule: Schedule | None, n: int = 4) -> Sequence[float]:
        return [factor(schedule, k) for k in range(n)]

    assert of(None) == [1.0] * 4 and of([2.0, 0.5]) == [2.0, 0.5, 0.5, 0.5] and of(lambda k: k / 2) == [0, 0.5, 1, 1.5]
    assert of(first(1)) == [1, 0, 0, 0] and of(decaying(2), 5) == pytest.approx([1, 0.5**0.5, 0.5, 0.5**1.5, 0.25])
