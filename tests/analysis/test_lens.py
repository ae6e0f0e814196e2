"""The logit lens: the last layer gives the model's logits, a vector's lens is what adding it does to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain
import pytest
import stories
import tiny_models
import torch

import caa_lens as caa
from caa_lens import analysis
from caa_lens.analysis.lens import direction_logits
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt, token_texts
from caa_lens.vectors.vectors import Provenance, SteeringVectors


def random_vectors(model: Any, scale: float = 1.0) -> SteeringVectors:
    values = torch.randn(model.cfg.n_layers, model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(scale * values, tuple(range(model.cfg.n_layers)), Provenance.unknown("toy"), "kind")


def test_the_last_block_gives_the_models_own_logits(model: Any) -> None:
    vectors = random_vectors(model)
    text, last = ("Is it so? (A) yes (B) no", "(A)"), model.cfg.n_layers - 1
    ids = format_prompt(model, *text, prompt_format="base").ids
    start = format_prompt(model, text[0], prompt_format="base").position("prompt_end")
    for recipe in (None, vectors[1] * 2.0):
        edits = [] if recipe is None else [(recipe.layer, recipe.values)]
        logits = plain.plain_logits(model, ids, edits, start)
        frame = analysis.stream_lens(
            model, text, steer=recipe, layers=[last], sites=["resid_post"], positions=[0, -1], prompt_format="base"
        )
        assert frame["pos"].drop_duplicates().tolist() == [0, len(ids) - 1]
        for place, own in frame.groupby("pos"):
            assert own["rank"].tolist() == [1, 2, 3, 4, 5]
            best = logits[int(str(place))].topk(5)
            assert own["predicted_id"].tolist() == best.indices.tolist()
            assert own["logit"].to_numpy() == pytest.approx(best.values.numpy(), abs=1e-3)
            logp = logits[int(str(place))].log_softmax(-1)[best.indices]
            assert own["logp"].to_numpy() == pytest.approx(logp.numpy(), abs=1e-3)
            assert own["steered"].tolist() == [recipe is not None and place != 0] * 5


def test_attention_and_mlp_are_what_is_added_to_the_stream(model: Any) -> None:
    """Read through the same head, the two sites are the terms that the block's output is the sum of."""
    adapter, seen = adapt(model), dict[str, torch.Tensor]()
    names = ["blocks.1.hook_resid_pre", *(adapter.hook_name(1, site) for site in ("attn_out", "mlp_out", "resid_post"))]
    ids = format_prompt(model, "hello there", prompt_format="plain").ids

    def keep(name: str) -> Any:
        return lambda value, hook: seen.__setitem__(name, value.detach()[0, -1])

    with torch.no_grad():
        model.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=[(name, keep(name)) for name in names])
    before, attention, mlp, after = (seen[name] for name in names)
    torch.testing.assert_close(before + attention + mlp, after, atol=1e-4, rtol=1e-4)
    frame = analysis.stream_lens(model, "hello there", layers=[1], prompt_format="plain", k=1)
    assert frame["site"].tolist() == ["attn_out", "mlp_out", "resid_post"]
    with torch.no_grad():
        for value, row in zip((attention, mlp, after), frame.to_dict("records"), strict=True):
            own = adapter.head(value[None, None])[0, 0]
            assert row["predicted_id"] == int(own.argmax()) and row["logit"] == pytest.approx(
                float(own.max()), abs=1e-3
            )


def test_a_vectors_lens_is_the_slope_of_the_logits(model: Any) -> None:
    """Adding a little to a stream that the norm divides by s moves the logits by the lens over s."""
    adapter = adapt(model)
    direction, width = random_vectors(model).values[0] + 1, model.cfg.d_model  # a mean that a centring norm removes
    signs = torch.ones(width)
    signs[1::2] = -1  # its mean is 0 and its square 1: the norm divides it by its length alone
    direction = direction - (direction @ signs) * signs / width  # along the stream itself, the norm takes it back
    lens = direction_logits(adapter, direction[None], "weight")[0].double()

    def logits(step: float) -> torch.Tensor:
        stream = 50 * signs + step * direction
        with torch.no_grad():
            normed = adapter.final_norm(stream[None, None])
            return (normed @ adapter.unembedding)[0, 0].double()

    slope = (logits(0.5) - logits(-0.5)) * 50
    torch.testing.assert_close(slope, lens, atol=0.02 * float(lens.abs().max()), rtol=0.02)


def test_the_three_norms(model: Any) -> None:
    adapter, vectors = adapt(model), random_vectors(model)
    none = analysis.logit_lens(model, vectors[1], k=3, norm="none")
    own = vectors[1].values @ adapter.unembedding.float()
    assert none[none["end"] == "top"]["logit"].tolist() == pytest.approx(own.topk(3).values.tolist(), abs=1e-4)
    assert none[none["end"] == "bottom"]["token_id"].tolist() == own.topk(3, largest=False).indices.tolist()
    long, short = (analysis.logit_lens(model, vectors[1] * scale, k=3, norm="full") for scale in (1e3, 1.0))
    assert long["token_id"].tolist() == short["token_id"].tolist()
    assert long["logit"].to_numpy() == pytest.approx(short["logit"].to_numpy(), rel=1e-2, abs=1e-2)
    long, short = (analysis.logit_lens(model, vectors[1] * scale, k=3) for scale in (10.0, 1.0))
    assert long["logit"].to_numpy() == pytest.approx(10 * short["logit"].to_numpy(), rel=1e-3)
    opposite = analysis.logit_lens(model, -vectors[1], k=3)
    assert opposite[opposite["end"] == "top"]["token_id"].tolist() == (
        short[short["end"] == "bottom"]["token_id"].tolist()
    )


def test_similarity_to_the_unembedding(model: Any) -> None:
    adapter = adapt(model)
    directions = adapter.unembedding.float()
    vectors = SteeringVectors(directions[:, [65, 70]].T.clone() * 3, (0, 1), Provenance.unknown("toy"), "kind")
    frame = analysis.unembedding_similarity(model, vectors, [65, 70, 71])
    at_0 = frame[frame["layer"] == 0]
    assert at_0["token_id"].tolist() == [65, 70, 71]
    assert at_0["cosine"].iloc[0] == pytest.approx(1, abs=1e-5) and at_0["rank"].iloc[0] == 1
    expected = torch.nn.functional.cosine_similarity(directions[:, 65], directions[:, 71], dim=0)
    assert at_0["cosine"].iloc[2] == pytest.approx(float(expected), abs=1e-5)
    ends = analysis.unembedding_similarity(model, vectors[1], k=4)
    assert ends["cosine"].is_monotonic_decreasing and ends["token_id"].iloc[0] == 70
    assert ends["rank"].tolist() == [1, 2, 3, 4, *range(model.cfg.d_vocab - 3, model.cfg.d_vocab + 1)]


@pytest.mark.parametrize("style", ["llama", "gpt2", "qwen2"])
def test_tokens_are_found_by_their_text(bridge: Callable[[str], Any], style: str) -> None:
    model = bridge(style)
    frame = analysis.stream_lens(model, "hello", tokens=["A", " the"], layers=[0], sites=["resid_post"])
    assert frame["predicted"].tolist() == ["A", " the"]
    every = analysis.stream_lens(model, "hello", k=model.cfg.d_vocab, layers=[0], sites=["resid_post"])
    found = every.set_index("predicted_id").loc[frame["predicted_id"]]
    assert found["rank"].tolist() == frame["rank"].tolist()
    assert found["logp"].tolist() == pytest.approx(frame["logp"].tolist())
    assert torch.tensor(every["logp"].to_numpy()).exp().sum() == pytest.approx(1, abs=1e-4)


def test_a_padded_vocabulary_has_ids_without_text(bridge: Callable[[str], Any]) -> None:
    assert token_texts(adapt(bridge("llama")), [5000, 65]) == ["<5000>", token_texts(adapt(bridge("llama")), [65])[0]]


def test_what_does_not_fit_is_refused(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vectors = random_vectors(model)
    with pytest.raises(ValueError, match=r"'Abracadabra' is not one token of llama but \d+ \(' ', 'A', 'b'"):
        analysis.unembedding_similarity(model, vectors, ["Abracadabra"])
    with pytest.raises(ValueError, match=r"token id 9999 is outside the vocabulary of llama \(0 to "):
        analysis.unembedding_similarity(model, vectors, [9999])
    with pytest.raises(ValueError, match=r"k is 0: give 1 to \d+, the size of llama's vocabulary"):
        analysis.logit_lens(model, vectors, k=0)
    with pytest.raises(ValueError, match="layer 9 is out of range for llama"):
        analysis.stream_lens(model, "hello", layers=[9])
    with pytest.raises(ValueError, match="no 'answer_letter' in"):
        analysis.stream_lens(model, "hello", positions=["answer_letter"])
    with pytest.raises(ValueError, match="there are no positions: give roles such as bos"):
        analysis.stream_lens(model, "hello", positions=[])
    with pytest.raises(ValueError, match=r"sites \[\]: give one or more of attn_out, mlp_out, resid_post"):
        analysis.stream_lens(model, "hello", sites=[])


@pytest.mark.usefixtures("unchecked")
def test_unknown_choices_are_listed(bridge: Callable[[str], Any]) -> None:
    model: Any = bridge("llama")
    wrong: Any = "resid_mid"
    with pytest.raises(ValueError, match=r"sites \['resid_mid'\]: give one or more of attn_out"):
        analysis.stream_lens(model, "hello", sites=[wrong])
    with pytest.raises(ValueError, match="norm 'resid_mid' is not known: give one of weight, full, none"):
        analysis.logit_lens(model, random_vectors(model), norm=wrong)


def test_a_head_that_does_more_is_noticed(tiny_path: Callable[[str], Path], tmp_path: Path) -> None:
    """Granite divides its logits by a number of its own, which norm and unembedding do not show."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GraniteConfig

    tokenizer = AutoTokenizer.from_pretrained(tiny_path("llama"))
    config = GraniteConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        logits_scaling=8.0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its head does more than that"):
        analysis.stream_lens(tiny_models.load_bridge(tmp_path), "hello")


def test_girl_minus_boy_says_she(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"needs the model in {folder}")
    model: Any = caa.load_model(folder)
    vectors = caa.extract_vectors(model, stories.pairs(), read="answer_end", prompt_format="plain")
    frame = analysis.logit_lens(model, vectors[4], k=10)
    words = {end: [token.strip() for token in own["token"]] for end, own in frame.groupby("end")}
    assert "She" in words["top"] and "He" in words["bottom"], words
    similar = analysis.unembedding_similarity(model, vectors, [" She", " He"])
    later = similar[similar["layer"] >= 3].pivot(index="layer", columns="token", values="cosine")
    assert (later[" She"] > later[" He"]).all()
