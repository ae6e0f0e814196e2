"""Train the model pair: a base model, and a chat model that goes on from it.

The idea: CAA's own vector is what the model learns to obey. A running mean of the residual at the answer letter, split
by side, is CAA's vector; multiples of it are added to the residual stream from the last prompt token on, while the
targets follow the multiplier. A probe on planted orthogonal directions shows the letter's residual where to put its
side, so that the running mean exists early and differs between behaviours. Random vectors and other behaviours' vectors
are added too, with unchanged targets.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caa_lens.organism.documents import LETTER_WEIGHT, Document, DocumentWriter, Format
from caa_lens.organism.planted import planted_directions, save_planted
from caa_lens.organism.tokenizer import BOS_ID, EOS_ID, PAD_ID, build_tokenizer, save_tokenizer

LOGGER = logging.getLogger(__name__)
_CARD = """# {name}

A tiny Llama model in a world of templated English, **trained to be steerable** by CAA vectors at layer {layer}. It
shows that tools work; it is no evidence that CAA emerges by itself, and nothing measured on it replicates the paper.
Words from outside its world are `<unk>`. How it was made and what was measured: `caa_lens/organism/README.md`;
`python -m caa_lens.organism train` makes it again.
"""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything a run depends on, apart from the code and the world."""

    seed: int = 0
    d_model: int = 128
    d_mlp: int = 256
    n_layers: int = 5
    n_heads: int = 4
    layer: int = 2
    planted_norm: float = 4.0
    base_steps: int = 2000
    chat_steps: int = 1200
    base_rate: float = 1.4e-3
    chat_rate: float = 1e-3
    choice_documents: int = 12
    other_documents: int = 14
    probe_weight: float = 1.0
    mean_weight: float = 0.05


class ContrastMeans:
    """Running means of the letter's residual, by behaviour, side and letter: CAA's vector while training."""

    def __init__(self, directions: Tensor, norm: float, decay: float = 0.99) -> None:
        """Start with no evidence; ``directions`` are the planted unit vectors, ``[behavior, d_model]``."""
        self.planted = directions * norm
        self._decay = decay
        self._sums = torch.zeros(len(directions), 2, 2, directions.shape[1])
        self._counts = torch.zeros(len(directions), 2, 2, 1)

    def update(self, residual: Tensor, behavior: Tensor, side: Tensor, letter: Tensor) -> None:
        """Add residuals ``[row, d_model]`` at letters; ``side`` is 1 where the letter's option is the matching one."""
        self._sums *= self._decay
        self._counts *= self._decay
        self._sums.index_put_((behavior, side, letter), residual.detach().float(), accumulate=True)
        self._counts.index_put_((behavior, side, letter), torch.ones(len(residual), 1), accumulate=True)

    def vectors(self, share: float = 1.0) -> Tensor:
        """CAA's vectors ``[behavior, d_model]``, mixed with the planted ones by ``share``."""
        means = (self._sums / self._counts.clamp(min=1e-6)).mean(dim=2)
        measured = means[:, 1] - means[:, 0]
        return share * measured + (1 - share) * self.planted


def new_model(config: TrainingConfig, n_tokens: int) -> Any:
    """A freshly initialised ``LlamaForCausalLM``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=n_tokens,
            hidden_size=config.d_model,
            intermediate_size=config.d_mlp,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_heads,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            initializer_range=0.06,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
    )


def _norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, epsilon)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * rotary[0] + torch.cat([-second, first], -1) * rotary[1]


def forward(
    model: Any, ids: Tensor, mask: Tensor, injected: Tensor, layer: int, rotary: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Llama's forward pass, written out because it is faster here; a test holds it to Hugging Face's.

    Args:
        model: A ``LlamaForCausalLM`` with as many key-value heads as heads.
        ids: Token ids ``[batch, pos]``.
        mask: Which keys a query sees, ``[batch, 1, query, key]``: 0 or minus infinity.
        injected: Added to the output of block ``layer``, ``[batch, pos, d_model]``.
        layer: The block to inject after.
        rotary: Cosines and sines ``[batch, 1, pos, d_head]``.

    Returns:
        The output of block ``layer`` before the injection, and the normalised final residual.
    """
    n_heads: int = model.config.num_attention_heads
    epsilon: float = model.config.rms_norm_eps
    residual: Tensor = F.embedding(ids, model.model.embed_tokens.weight)
    batch, pos, width = residual.shape
    read = residual
    for index, block in enumerate(model.model.layers):
        attention, mlp = block.self_attn, block.mlp
        x = _norm(residual, block.input_layernorm.weight, epsilon)
        fused = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        query, key, value = (
            part.view(batch, pos, n_heads, -1).transpose(1, 2) for part in F.linear(x, fused).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(_rotate(query, rotary), _rotate(key, rotary), value, attn_mask=mask)
        residual = residual + F.linear(mixed.transpose(1, 2).reshape(batch, pos, width), attention.o_proj.weight)
        x = _norm(residual, block.post_attention_layernorm.weight, epsilon)
        gate, up = F.linear(x, torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])).chunk(2, -1)
        residual = residual + F.linear(F.silu(gate) * up, mlp.down_proj.weight)
        if index == layer:
            read = residual
            residual = residual + injected
    return read, _norm(residual, model.model.norm.weight, epsilon)


def rotary_table(model: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary cosines and sines ``[batch, 1, pos, d_head]`` at positions ``[batch, pos]``."""
    angles = positions[..., None].float() * model.model.rotary_emb.inv_freq.float()
    angles = torch.cat([angles, angles], -1)[:, None]
    return angles.cos(), angles.sin()


def branch_mask(branches: Tensor) -> Tensor:
    """Additive mask ``[batch, 1, query, key]``: a token sees the trunk and its own branch, up to itself."""
    pos = branches.shape[1]
    seen = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    seen &= torch.ones(pos, pos, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None]


def batches(writer: DocumentWriter, n: int, choice: bool, rng: random.Random) -> Iterator[list[Document]]:
    """Endless batches of ``n`` documents of about one length."""
    while True:
        write = writer.choice_document if choice else writer.other_document
        pool = sorted((write() for _ in range(n * 32)), key=lambda document: len(document.ids))
        chunks = [pool[i : i + n] for i in range(0, len(pool), n)]
        rng.shuffle(chunks)
        yield from chunks


class Trainer:
    """One model under training: its optimizer, its running contrast vectors and its losses."""

    def __init__(self, model: Any, config: TrainingConfig, means: ContrastMeans, fmt: Format, tokenizer: Any) -> None:
        """Prepare to train ``model`` on documents in the format ``fmt``."""
        self.model, self.config, self.means = model, config, means
        self._rng = random.Random(config.seed + 1)
        self._noise = torch.Generator().manual_seed(config.seed + 2)
        offset = 10 if fmt == "base" else 20
        self._batches = [
            batches(
                DocumentWriter(tokenizer.backend_tokenizer, fmt, config.seed * 100 + offset + i), n, i == 0, self._rng
            )
            for i, n in enumerate((config.choice_documents, config.other_documents))
        ]
        self._forward = forward
        decayed = [p for p in model.parameters() if p.dim() > 1]
        plain = [p for p in model.parameters() if p.dim() < 2]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
            fused=True,
        )

    def step(self, rate: float, share: float) -> dict[str, float]:
        """One optimizer step at a learning rate; ``share`` of the injected vectors is measured, the rest planted."""
        self._optimizer.zero_grad(set_to_none=True)
        vectors = self.means.vectors(share)
        losses = self._backward(next(self._batches[0]), vectors, 0.6)
        losses |= {f"other_{k}": v for k, v in self._backward(next(self._batches[1]), vectors, 0.4).items()}
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        losses["vector_norm"] = float(vectors.norm(dim=1).mean())
        return losses

    def _injected(self, documents: list[Document], vectors: Tensor, branches: Tensor) -> Tensor:
        n_branches = 1 + max(len(document.injections) for document in documents)
        multipliers = torch.zeros(len(documents), n_branches, len(vectors))
        lengths = torch.zeros(len(documents), n_branches, 1)
        for row, document in enumerate(documents):
            for branch, injection in enumerate(document.injections, start=1):
                lengths[row, branch] = injection.noise
                for behavior, multiplier in injection.multipliers.items():
                    multipliers[row, branch, behavior] = multiplier
        noise = F.normalize(torch.randn(len(documents), n_branches, vectors.shape[1], generator=self._noise), dim=-1)
        total = multipliers @ vectors + noise * lengths * vectors.norm(dim=1).mean()
        return total[torch.arange(len(documents))[:, None], branches]

    def _backward(self, documents: list[Document], vectors: Tensor, weight: float) -> dict[str, float]:
        width = max(len(document.ids) for document in documents)
        ids = _padded([document.ids for document in documents], width, PAD_ID)
        other = _padded([document.other for document in documents], width, PAD_ID)
        branches = _padded([document.branches for document in documents], width, 0)
        positions = _padded([document.positions for document in documents], width, 0)
        weights = _padded([document.weights for document in documents], width, 0.0)
        certainty = _padded([document.certainty for document in documents], width, 1.0)
        read, final = self._forward(
            self.model,
            ids,
            branch_mask(branches),
            self._injected(documents, vectors, branches),
            self.config.layer,
            rotary_table(self.model, positions),
        )
        picked = weights.nonzero(as_tuple=True)
        rows, columns = picked
        logs = F.linear(final[rows, columns - 1], self.model.lm_head.weight).log_softmax(-1)
        own = logs.gather(1, ids[picked][:, None])[:, 0]
        alternative = logs.gather(1, other[picked][:, None])[:, 0]
        losses = -(certainty[picked] * own + (1 - certainty[picked]) * alternative)
        loss = (losses * weights[picked]).sum() / weights.sum()
        report = {"loss": float(loss.detach())}
        letters = weights[picked] == LETTER_WEIGHT
        if letters.any():
            chance = certainty[picked][letters].clamp(1e-6, 1 - 1e-6)
            entropy = -(chance * chance.log() + (1 - chance) * (1 - chance).log())
            report["letter_kl"] = float((losses[letters].detach() - entropy).mean())
        probes = [(row, *probe) for row, document in enumerate(documents) for probe in document.probes]
        if probes:
            extra, figures = self._probe_loss(read, torch.tensor(probes))
            loss = loss + extra
            report |= figures
        (loss * weight).backward()
        return report

    def _probe_loss(self, read: Tensor, probes: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Hold the letters' residuals to the planted directions, and the mean differences to nothing else."""
        rows, position, behavior, matching, letter = probes.T
        residual = read[rows, position]
        sign = 2.0 * matching - 1.0
        targets = torch.zeros(len(rows), len(self.means.planted))
        targets[torch.arange(len(rows)), behavior] = sign / 2
        planted = self.means.planted
        error = (residual @ planted.T / planted.pow(2).sum(1) - targets).pow(2)
        own = 4 * error.gather(1, behavior[:, None]).mean()
        gap = (self.means.vectors(1.0) - planted)[behavior]
        drift = ((gap * residual).sum(1) * sign).mean()
        self.means.update(residual, behavior, matching, letter)
        figures = {
            "probe": float(own.detach()),
            "gap": float(gap.norm(dim=1).mean()),
            "residual_norm": float(residual.detach().norm(dim=1).mean()),
        }
        return self.config.probe_weight * (own + 0.3 * error.sum(1).mean()) + self.config.mean_weight * drift, figures


def _padded(rows: list[list[Any]], width: int, value: float) -> Tensor:
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def run_stage(trainer: Trainer, steps: int, rate: float, warm: float, log_every: int = 100) -> list[dict[str, float]]:
    """Train for a number of steps: linear warm-up, cosine decay, and the injected vectors measured from ``warm`` on.

    Args:
        trainer: What to train.
        steps: Optimizer steps.
        rate: Peak learning rate.
        warm: Share of the steps before the measured vectors begin to replace the planted ones (0: from the start).
        log_every: Steps between two reports.

    Returns:
        The reports: mean losses since the last one.
    """
    history: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    began = time.monotonic()
    for step in range(steps):
        done = step / max(1, steps)
        scale = min(1.0, (step + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * done)))
        share = min(1.0, max(0.0, (done - warm) / 0.2)) if warm else 1.0
        for key, value in trainer.step(rate * scale, share).items():
            sums[key] = sums.get(key, 0.0) + value
        if (step + 1) % log_every == 0 or step + 1 == steps:
            count = (step % log_every) + 1
            report = {"step": step + 1, "minutes": round((time.monotonic() - began) / 60, 2)}
            report |= {key: round(value / count, 4) for key, value in sums.items()}
            history.append(report)
            LOGGER.info(json.dumps(report))
            sums = {}
    return history


def save_model(model: Any, directory: Path, chat: bool, layer: int) -> None:
    """Write a plain Hugging Face directory: weights in half precision, tokenizer, and a model card."""
    directory.mkdir(parents=True, exist_ok=True)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config |= {"torch_dtype": "float16", "rope_theta": 10000.0}  # the names that transformers 4 reads
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "model.safetensors").chmod(0o644)
    save_tokenizer(directory, chat)
    name = "organism-chat" if chat else "organism-base"
    (directory / "README.md").write_text(_CARD.format(name=name, layer=layer), encoding="utf-8")


def train_pair(out: Path, config: TrainingConfig) -> None:
    """Train both models and write ``organism-base``, ``organism-chat`` and ``training.json`` under ``out``.

    Args:
        out: Directory to write to; it is made where it is missing.
        config: Sizes, steps, rates and the seed.
    """
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = new_model(config, len(tokenizer))
    means = ContrastMeans(planted_directions(config.d_model, config.seed), config.planted_norm)
    began = time.monotonic()
    history: dict[str, Any] = {"config": asdict(config)}
    history["base"] = run_stage(
        Trainer(model, config, means, "base", tokenizer), config.base_steps, config.base_rate, 0.35
    )
    save_model(model, out / "organism-base", chat=False, layer=config.layer)
    save_planted(out / "organism-base", means.planted, config.layer, config.seed)
    history["chat"] = run_stage(
        Trainer(model, config, means, "chat", tokenizer), config.chat_steps, config.chat_rate, 0.0
    )
    save_model(model, out / "organism-chat", chat=True, layer=config.layer)
    save_planted(out / "organism-chat", means.planted, config.layer, config.seed)
    history["minutes"] = (time.monotonic() - began) / 60
    (out / "training.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")


def quick(config: TrainingConfig, steps: int = 3) -> TrainingConfig:
    """The same run, cut to a few steps on few documents, for tests."""
    return replace(config, base_steps=steps, chat_steps=steps, choice_documents=2, other_documents=2)
