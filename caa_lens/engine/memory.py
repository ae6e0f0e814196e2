"""How much is run at once, from the memory that is free.

A job's working memory does not grow with the number of its pairs or cells: they are run in chunks, and the sizes below
say how many fit. The estimates count what is largest (attention scores, keys and values, logits) from above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch

from caa_lens.models.adapters import Adapter

WORKING_BYTES = 1 << 30
"""On a CPU a job takes no more than this, however much is free: more was no faster where it was measured."""

LOGIT_BYTES = 1 << 28
"""On a CPU no more than this for logits at once: a product of a few hundred rows is at full speed."""


def working_bytes(device: torch.device) -> int:
    """What one job may take on this device: a quarter of what is free, on a CPU at most `WORKING_BYTES`."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own pool
        return (torch.cuda.mem_get_info(device)[0] + unused) // 4
    import psutil

    return min(WORKING_BYTES, int(psutil.virtual_memory().available) // 4)


def most_tokens(device: torch.device) -> int:
    """Prompts are run together up to so many tokens: enough for matrix products at full speed.

    More is slower on a CPU, where large temporary tensors are given back to the system and asked for again.
    """
    return 1024 if device.type == "cpu" else 16384


def release_freed_memory(device: torch.device) -> None:
    """Hand freed memory of the CPU back to the system, where the C library can (glibc).

    It keeps freed blocks for later. Batches differ in shape and blocks of one do not fit the next, so that a long job
    would come to hold twice what it uses.
    """
    if device.type == "cpu" and (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    import ctypes

    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):  # another system, or another C library
        return None


def by_length(lengths: Sequence[int], fits: Callable[[int], int]) -> Iterator[list[int]]:
    """Indices of texts of about the same length together, the longest first; ``fits`` says how many of a length."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)
    while order:
        size = fits(lengths[order[0]])
        yield order[:size]
        order = order[size:]


def prompts_at_once(adapter: Adapter, length: int) -> int:
    """How many prompts of this length are run together."""
    fitting = working_bytes(adapter.device) // prompt_bytes(adapter, length, 1)
    return max(1, min(most_tokens(adapter.device) // length, fitting))


def prompt_bytes(adapter: Adapter, n_prompt: int, n_new: int) -> int:
    """A prompt's keys and values, and the largest block's activations while it or ``n_new`` packed tokens are run."""
    heads, d_mlp, item = int(adapter.cfg.n_heads), int(getattr(adapter.cfg, "d_mlp", 0) or 0), adapter.dtype.itemsize

    def block(queries: int, keys: int) -> int:
        return queries * (keys * heads * (3 * item + 8) + (8 * adapter.d_model + 4 * d_mlp) * item)

    largest = max(block(n_prompt, n_prompt), block(n_new, n_prompt + n_new))
    kept = adapter.n_layers * heads * max(n_prompt**2, n_new * (n_prompt + n_new)) * item
    return n_prompt * adapter.bytes_per_position + largest + (kept if adapter.keeps_patterns else 0)


def fork_bytes(adapter: Adapter, length: int) -> int:
    """One forked branch: its copy of the keys and values, one layer's once more while it grows, and its logits."""
    return length * adapter.bytes_per_position * (adapter.n_layers + 1) // adapter.n_layers + logit_bytes(adapter)


def logit_bytes(adapter: Adapter) -> int:
    """One position's logits, and what turning them into log-probabilities takes beside them."""
    return int(adapter.cfg.d_vocab) * (adapter.dtype.itemsize + 8)


def logits_at_once(adapter: Adapter) -> int:
    """How many positions' logits are made together."""
    room = working_bytes(adapter.device)
    return max(1, (min(room, LOGIT_BYTES) if adapter.device.type == "cpu" else room) // logit_bytes(adapter))


def rows_at_once(adapter: Adapter, length: int) -> int:
    """How many texts of this length are continued together."""
    most = 32 if adapter.device.type == "cpu" else 256
    return max(1, min(most, working_bytes(adapter.device) // fork_bytes(adapter, length)))
