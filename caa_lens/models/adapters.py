"""The two kinds of TransformerLens model, settled into one surface.

``TransformerBridge`` (3.x and 4.x) wraps the Hugging Face model itself; ``HookedTransformer`` (up to 3.9) is a rewrite
of it. They share ``hooks``, ``run_with_hooks``, ``run_with_cache`` and the hook names, and differ in how a key-value
cache is passed, in what a mask means beside one, and in how to leave out the unembedding. The adapters below settle
those differences. This is the only module that knows there are two classes; every other one works on an `Adapter`, or
on the surface that both share.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

TokenIds = Sequence[int]


@runtime_checkable
class HookedModel(Protocol):
    """The surface that HookedTransformer and TransformerBridge share and that caa_lens uses."""

    cfg: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model on token ids ``[batch, pos]``."""
        ...

    def hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        """Hold hooks on the model for the length of a ``with`` block."""
        ...

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:
        """Run once with hooks."""
        ...

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        """Run once and return every activation."""
        ...


@dataclass(slots=True)
class Prefix:
    """A batch of left-padded prompts that have been run: their mask ``[batch, pos]`` and the model's own cache."""

    mask: Int[Tensor, "batch pos"]
    cache: Any


class Adapter:
    """One model, seen through what the rest of the package needs. `adapt` chooses the subclass."""

    mid_is_a_copy = False
    """Whether ``hook_resid_mid`` is a copy beside the stream, so that what is changed there does not reach it."""

    def __init__(self, model: HookedModel) -> None:
        """Remember the model; nothing is copied and nothing is changed."""
        self.model = model
        self.cfg: Any = model.cfg
        self.n_layers = int(self.cfg.n_layers)
        self.d_model = int(self.cfg.d_model)
        self.n_ctx = int(self.cfg.n_ctx)
        self.device = torch.device(self.cfg.device or "cpu")

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer; raises ValueError for a model that has none."""
        tokenizer: Any = getattr(self.model, "tokenizer", None)
        if tokenizer is None:
            raise ValueError(
                f"the model {self.name!r} has no tokenizer: set model.tokenizer, or load it with load_model()"
            )
        return tokenizer

    @property
    def name(self) -> str:
        """The hub id, or the folder's name where the model came from a directory."""
        given = str(getattr(self.cfg, "model_name", "") or "custom")
        return Path(given).name if Path(given).is_dir() else given

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""
        return cast(torch.dtype, self.cfg.dtype)

    @property
    def prepends_bos(self) -> bool:
        """Whether this model's prompts begin with a BOS token, by TransformerLens' table of architectures."""
        return bool(getattr(self.cfg, "default_prepend_bos", True))

    @property
    def blocks(self) -> Iterable[torch.nn.Module]:
        """The blocks, in order."""
        return cast(Any, self.model).blocks

    def hook_name(self, layer: int, site: str = "resid_post") -> str:
        """A block's output, or another of its sites, under the same name on both classes."""
        return f"blocks.{layer}.hook_{site}"

    @property
    def hook_points(self) -> Iterable[str]:
        """The names of all hook points."""
        return cast(Any, self.model).hook_dict.keys()

    @property
    def unembedding(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding's weights: one direction a token, without its bias."""
        return cast(Any, self.model).W_U.detach()

    def final_norm(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the model's last norm makes of a residual stream."""
        return cast(Any, self.model).ln_final(resid)

    def head(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of a residual stream, as the model makes them of its last block's: norm, unembedding, soft cap."""
        logits: Tensor = cast(Any, self.model).unembed(self.final_norm(resid))
        cap = float(getattr(self.cfg, "output_logits_soft_cap", -1.0) or -1.0)
        return cap * torch.tanh(logits / cap) if cap > 0 else logits

    @property
    def stop_ids(self) -> set[int]:
        """Tokens that end a text: the tokenizer's, and those of the model's generation config."""
        settings = getattr(getattr(self.model, "original_model", None), "generation_config", None)
        found: Any = getattr(settings, "eos_token_id", None)
        ids = found if isinstance(found, list) else [found]
        return {int(token) for token in [*ids, self.tokenizer.eos_token_id] if token is not None}

    @property
    def bytes_per_position(self) -> int:
        """Bytes of keys and values that one token of one prompt takes in a cache."""
        heads = int(getattr(self.cfg, "n_key_value_heads", None) or self.cfg.n_heads)
        return 2 * self.n_layers * heads * int(self.cfg.d_head) * self.dtype.itemsize

    @property
    def keeps_patterns(self) -> bool:
        """Whether every block's attention keeps its last pattern, as TransformerLens' joint attention bridges do."""
        return any(hasattr(getattr(block, "attn", None), "_pattern") for block in self.blocks)

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """The weights that the fingerprint is taken from."""
        return cast(Any, self.model).named_parameters()

    def prefill(self, ids: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"]) -> Prefix:
        """Run left-padded prompts once and keep their keys and values; no logits are made."""
        raise NotImplementedError

    def fork(self, prefix: Prefix, rows: Int[Tensor, " branch"]) -> Prefix:
        """Copy the given prompts' caches, one row a branch; the original stays as it was."""
        raise NotImplementedError

    def extend(
        self, prefix: Prefix, ids: Int[Tensor, "batch new"], last: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch d_vocab"]:
        """Run further tokens after a prefix, which grows by them; logits after token ``last`` of each row."""
        raise NotImplementedError

    def packs(self, length: int) -> bool:
        """Whether `extend_packed` is exact for sequences of so many positions; where not, branches are forked."""
        return False

    def extend_packed(
        self,
        prefix: Prefix,
        ids: Int[Tensor, "batch new"],
        mask: Float[Tensor, "batch 1 new total"],
        positions: Int[Tensor, "batch new"],
        keep: Int[Tensor, " kept"],
    ) -> Float[Tensor, "batch kept d_vocab"]:
        """Run many branches of each prompt as one row after it, with what each token sees given by an additive mask.

        The prefix is read and stays as it was; its keys are not copied per branch. Logits are made for the columns
        ``keep`` only.
        """
        raise NotImplementedError

    def forward(
        self, ids: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"], last: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch d_vocab"]:
        """The plain path: everything in one pass without a cache, logits after token ``last`` of each row."""
        raise NotImplementedError


class HookedTransformerAdapter(Adapter):
    """HookedTransformer: its own cache class, whose mask counts the new tokens only."""

    def prefill(self, ids: Tensor, mask: Tensor) -> Prefix:
        """See `Adapter.prefill`."""
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        cache = TransformerLensKeyValueCache.init_cache(self.cfg, self.device, len(ids))
        if ids.shape[1]:
            self.model(ids, return_type=None, attention_mask=mask, past_kv_cache=cache)
        return Prefix(mask, cache)

    def fork(self, prefix: Prefix, rows: Tensor) -> Prefix:
        """See `Adapter.fork`."""
        cache = copy.copy(prefix.cache)
        cache.previous_attention_mask = cache.previous_attention_mask[rows]
        cache.entries = [copy.copy(entry) for entry in cache.entries]
        for entry in cache.entries:
            chosen = rows.to(entry.past_keys.device)
            entry.past_keys, entry.past_values = entry.past_keys[chosen], entry.past_values[chosen]
        return Prefix(prefix.mask[rows], cache)

    def extend(self, prefix: Prefix, ids: Tensor, last: Tensor) -> Tensor:
        """See `Adapter.extend`."""
        new = torch.ones_like(ids)
        resid = self.model(ids, attention_mask=new, past_kv_cache=prefix.cache, stop_at_layer=self.n_layers)
        prefix.mask = torch.cat([prefix.mask, new], dim=1)
        return self._unembed(resid, last)

    def forward(self, ids: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """See `Adapter.forward`."""
        return self._unembed(self.model(ids, attention_mask=mask, stop_at_layer=self.n_layers), last)

    def _unembed(self, resid: Tensor, last: Tensor) -> Tensor:
        rows = torch.arange(len(resid), device=resid.device)
        return self.head(resid[rows, last.to(resid.device)].unsqueeze(1))[:, 0]


PACKED_MODELS = frozenset({"llama", "mistral", "gpt2", "gpt_neox", "qwen2", "qwen3", "gemma2", "gemma3_text"})
"""Hugging Face's ``model_type`` of the architectures whose packed branches the tests compare with full passes.

Others may see positions or masks that a packed row does not have (ALiBi, recurrent states), and are forked.
"""


class BridgeAdapter(Adapter):
    """TransformerBridge: Hugging Face's cache, whose mask covers the cached tokens as well as the new ones."""

    mid_is_a_copy = True

    def __init__(self, model: HookedModel) -> None:
        """See `Adapter`; also looks up, once, which keywords the wrapped model's forward takes."""
        super().__init__(model)
        self.wrapped: Any = cast(Any, model).original_model
        self.accepts = set(inspect.signature(self.wrapped.forward).parameters)

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """See `Adapter.named_parameters`."""
        return self.wrapped.named_parameters()

    def prefill(self, ids: Tensor, mask: Tensor) -> Prefix:
        """See `Adapter.prefill`."""
        if ids.shape[1] == 0:
            return Prefix(mask, None)
        keep: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self.accepts else {}
        if self.wrapped.config.model_type not in PACKED_MODELS:
            return Prefix(mask, self._run(ids, mask, use_cache=True, **keep)[1])
        from transformers import DynamicCache

        cache: Any = DynamicCache(config=self.wrapped.config)
        final = cache.layers[-1]
        final.update = partial(_update_and_leave, final.update)
        with suppress(_PromptIsRead):  # nothing of the last block is needed but its keys and values
            self._run(ids, mask, use_cache=True, past_key_values=cache, **keep)
        del final.update
        return Prefix(mask, cache)

    def fork(self, prefix: Prefix, rows: Tensor) -> Prefix:
        """See `Adapter.fork`."""
        cache: Any = None
        if prefix.cache is not None:
            layers = getattr(prefix.cache, "layers", [])
            # These two kinds replace their tensors when they grow, so they can be shared until then; others are copied.
            shared = {"DynamicLayer", "DynamicSlidingWindowLayer"}
            plain = bool(layers) and {type(layer).__name__ for layer in layers} <= shared
            cache = _sharing(prefix.cache) if plain else copy.deepcopy(prefix.cache)
            cache.batch_select_indices(rows.cpu())  # an index on the CPU serves layers on any device
        return Prefix(prefix.mask[rows], cache)

    def extend(self, prefix: Prefix, ids: Tensor, last: Tensor) -> Tensor:
        """See `Adapter.extend`."""
        prefix.mask = torch.cat([prefix.mask, torch.ones_like(ids)], dim=1)
        past: dict[str, Any] = {} if prefix.cache is None else {"past_key_values": prefix.cache}
        logits, prefix.cache = self._run(ids, prefix.mask, last, use_cache=True, **past)
        return logits

    def packs(self, length: int) -> bool:
        """See `Adapter.packs`: a known architecture, and no position beyond a sliding window."""
        window = getattr(self.wrapped.config, "sliding_window", None)
        return self.wrapped.config.model_type in PACKED_MODELS and (window is None or length <= int(window))

    def extend_packed(self, prefix: Prefix, ids: Tensor, mask: Tensor, positions: Tensor, keep: Tensor) -> Tensor:
        """See `Adapter.extend_packed`."""
        past: dict[str, Any] = {"use_cache": False}
        if prefix.cache is not None:
            past = {"use_cache": True, "past_key_values": _sharing(prefix.cache)}
            for layer in past["past_key_values"].layers:  # a function of tensors: of the layer, it would be a cycle
                layer.update = partial(_read_only_update, layer.keys, layer.values)
        logits, _ = self.model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=keep,
            return_type="logits_and_cache",
            **past,
        )
        return logits

    def forward(self, ids: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """See `Adapter.forward`."""
        return self._run(ids, mask, last, use_cache=False)[0]

    def _run(self, ids: Tensor, mask: Tensor, last: Tensor | None = None, **keywords: Any) -> tuple[Tensor, Any]:
        if "position_ids" in self.accepts:
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            keywords["position_ids"] = positions[:, -ids.shape[1] :]
        if last is not None and "logits_to_keep" in self.accepts:
            kept, last = torch.unique(last, return_inverse=True)
            keywords["logits_to_keep"] = kept.cpu()  # the last block may be on another device than the ids
        logits, cache = self.model(ids, attention_mask=mask, return_type="logits_and_cache", **keywords)
        if last is None:
            return logits[:, -1], cache
        return logits[torch.arange(len(ids), device=logits.device), last.to(logits.device)], cache


class _PromptIsRead(Exception):
    """Not an error: it leaves the forward pass over a prompt when the last block's keys and values are kept."""


def _update_and_leave(update: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    update(*args, **keywords)
    raise _PromptIsRead


def _sharing(cache: Any) -> Any:
    """The same keys and values in a cache of its own."""
    mine = copy.copy(cache)
    mine.layers = [copy.copy(layer) for layer in cache.layers]
    return mine


def _read_only_update(
    old_keys: Tensor, old_values: Tensor, keys: Tensor, values: Tensor, *args: Any, **keywords: Any
) -> tuple[Tensor, Tensor]:
    """What a cache layer's update returns, without keeping it: each block's is freed when the block is done."""
    return torch.cat([old_keys, keys], dim=-2), torch.cat([old_values, values], dim=-2)


def left_padded(
    adapter: Adapter, sequences: Sequence[TokenIds]
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Token ids and mask of sequences of different lengths, padded on the left to the longest."""
    width = max(len(ids) for ids in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        if sequence:
            ids[row, width - len(sequence) :] = torch.tensor(list(sequence))
            mask[row, width - len(sequence) :] = 1
    return ids.to(adapter.device), mask.to(adapter.device)


def right_padded(adapter: Adapter, sequences: Sequence[TokenIds]) -> Int[Tensor, "batch pos"]:
    """Token ids of sequences of different lengths, each with its last token again up to the longest.

    Causal attention never looks there, so that no mask is needed.
    """
    width = max(len(ids) for ids in sequences)
    return torch.tensor([[*ids, *[ids[-1]] * (width - len(ids))] for ids in sequences], device=adapter.device)


def adapt(model: HookedModel | Adapter) -> Adapter:
    """Choose the adapter by what the model offers, without importing either class.

    Raises:
        TypeError: If the object has no hook points, with what it is and what is accepted.
    """
    if isinstance(model, Adapter):
        return model
    if hasattr(type(model), "hooks") and hasattr(model, "cfg"):
        if hasattr(type(model), "boot_transformers"):
            return BridgeAdapter(model)
        if hasattr(type(model), "input_to_embed"):
            return HookedTransformerAdapter(model)
    raise TypeError(
        f"expected a TransformerLens model (HookedTransformer or TransformerBridge), got {type(model).__name__}: "
        "load one with caa_lens.load_model(name), or wrap a Hugging Face model with TransformerBridge.boot_transformers"
    )
