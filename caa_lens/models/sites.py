"""The places in a block where a model can be read and steered, under the names that TransformerLens gives them.

A block adds to the residual stream twice: ``resid_pre`` + ``attn_out`` = ``resid_mid``, and ``resid_mid`` + ``mlp_out``
= ``resid_post``, which is the next block's ``resid_pre``. ``attn_out`` and ``mlp_out`` are what is added, after the
norms that some models (Gemma 2 and 3) have there. Where attention and MLP both read ``resid_pre`` (GPT-NeoX, Pythia),
there is no ``resid_mid``.

The names mean the same on both model classes, with one exception that is settled here. TransformerBridge's
``hook_resid_mid`` is the input of the norm before the MLP, a copy beside the stream: what is changed there reaches the
MLP and not the blocks above. `site_hooks` carries the change over into the stream, at the block's output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor

from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter

Site = Literal["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
SITES: tuple[Site, ...] = get_args(Site)
"""In the order in which a pass comes to them."""

Point = tuple[int, str]
"""A layer and a site."""

Change = Callable[[Tensor], Tensor | None]
"""Given the ``[batch, pos, d_model]`` activations of a point, returns the new ones, or None to leave them."""


def place_of(point: Point) -> tuple[int, int]:
    """For sorting: points in the order in which a pass comes to them."""
    return point[0], SITES.index(point[1])


def check_site(adapter: Adapter, layer: int, site: str) -> str:
    """Return the site, or refuse one that is unknown or that the model does not have at this layer.

    Raises:
        ValueError: With the sites there are.
    """
    if site not in SITES:
        raise ValueError(f"the site {brief(site)} is not known: give one of {', '.join(SITES)}")
    if site == "resid_post":
        return site
    there = adapter.hook_points
    if adapter.hook_name(layer, site) not in there:
        others = [other for other in SITES if adapter.hook_name(layer, other) in there]
        hint = " (its attention and its MLP read the same stream)" if site == "resid_mid" else ""
        raise ValueError(
            f"{adapter.name} has no {site} at layer {layer}{hint}: the sites there are {', '.join(others)}"
        )
    return site


def site_hooks(adapter: Adapter, point: Point, change: Change) -> list[tuple[str, Callable[..., Tensor | None]]]:
    """The hooks that change the model at a point, for ``model.hooks``; in front of others at the block's output."""
    layer, site = point
    name = adapter.hook_name(layer, site)
    if site != "resid_mid" or not adapter.mid_is_a_copy:
        return [(name, _Hook(change))]
    copied = _Carried(change)
    return [(name, copied.at_mid), (adapter.hook_name(layer), copied.at_post)]


class _Hook:
    """A change as a hook."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def __call__(self, activations: Tensor, hook: Any = None) -> Tensor | None:
        return self._change(activations)


class _Carried:
    """A change of a copy of the stream, made to the stream itself at the block's output."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._moved: Tensor | None = None

    def at_mid(self, resid: Tensor, hook: Any = None) -> Tensor | None:
        changed = self._change(resid)
        self._moved = None if changed is None else changed - resid
        return changed

    def at_post(self, resid: Tensor, hook: Any = None) -> Tensor | None:
        moved, self._moved = self._moved, None
        return None if moved is None else resid + moved.to(resid)
