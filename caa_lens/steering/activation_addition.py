"""Activation addition (ActAdd): steering by the difference of two prompts, position by position.

``"Love"`` minus ``"Hate"``: both are run, and what enters a block is read at every position of each. The difference,
times a coefficient, is added to as many positions at the front of another prompt; its new tokens are not touched
(Turner et al., arXiv 2308.10248, section 3). One pair is enough where CAA averages over hundreds.

Conventions, which are easy to be off by one in:

- ActAdd's layer L is ``blocks.L.hook_resid_pre``, what *enters* block L. CAA's layer L is what leaves it. So ActAdd's
  layer L is CAA's layer L - 1.
- Prompts are tokenized as they are (format ``plain``), with BOS where the model has one. The shorter is padded on the
  right with the token of a space, so that both are of one length.
- Position 0 is BOS in both and cancels. In a prompt on its own it does not, and its activation is far larger than any
  other: there is a warning with its norm.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

from caa_lens.engine.block_inputs import block_inputs
from caa_lens.extraction.extraction import package_versions
from caa_lens.files.messages import brief
from caa_lens.interventions.prompt_additions import At
from caa_lens.interventions.prompt_additions import PromptAddition as PromptAddition
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import check_layers, model_info
from caa_lens.models.sites import check_site
from caa_lens.prompts import format_prompt, token_texts
from caa_lens.vectors.provenance import Provenance


class SinglePromptWarning(UserWarning):
    """The first position of an addition made from one prompt does not cancel."""


def addition(
    model: HookedModel,
    positive: str,
    negative: str | None = "",
    *,
    layer: int,
    coefficient: float = 1.0,
    at: At = "front",
) -> PromptAddition:
    """The difference of two prompts' activations at every position, for `steer` and `generate`.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        positive: The prompt whose activations are added.
        negative: The prompt whose activations are subtracted. ``""`` is the empty prompt: BOS, padded with spaces. None
            subtracts nothing, so that what is added has the activations of the first position, and all that prompts
            have in common, in it.
        layer: ActAdd's: the block whose input is read and added to.
        coefficient: Times the difference; the paper's examples use 1 to 15.
        at: Where in a prompt it is added: ``"front"`` as in the paper, ``"middle"`` or ``"back"``.

    Raises:
        ValueError: Before the model runs: for a layer that the model does not have, a prompt without tokens, or prompts
            of different lengths where the tokenizer has no token of a single space.

    Warns:
        SinglePromptWarning: For a single prompt, with the norm that is added at its first position.

    Example:
        >>> import caa_lens as caa
        >>> from caa_lens.steering.activation_addition import addition
        >>> model = caa.load_model("organism-chat")
        >>> more = addition(model, "yes", "no", layer=3, coefficient=2.0)
        >>> (-more).coefficient, bool((more.delta == 2 * more.values).all())
        (-2.0, True)
    """
    adapter = adapt(model)
    check_layers(adapter, [layer])
    check_site(adapter, layer, "resid_pre")
    prompts = [_ids(adapter, text) for text in (positive, negative) if text is not None]
    if not prompts[0]:
        raise ValueError(f"no token comes from the prompt {brief(positive)}: give one that is not empty")
    width = max(map(len, prompts))
    if any(len(ids) < width for ids in prompts):
        space = space_token(adapter)
        prompts = [[*ids, *[space] * (width - len(ids))] for ids in prompts]
    sides = block_inputs(adapter, layer, prompts)
    name = repr(positive) if negative is None else f"{positive!r} - {negative!r}"
    found = PromptAddition(
        values=sides[0] if negative is None else sides[0] - sides[1],
        layer=layer,
        coefficient=coefficient,
        at=at,
        tokens=tuple(tuple(token_texts(adapter, ids)) for ids in prompts),
        provenance=_provenance(model, name),
        name=name,
    )
    if negative is None:
        norms = found.norms()
        others = f", {float(norms[1:].median()):.4g} at the others (median)" if len(norms) > 1 else ""
        warnings.warn(
            f"{name} is a single prompt: its first position, {found.tokens[0][0]!r}, does not cancel and is added with "
            f"norm {float(norms[0]):.4g}{others}; give negative='' to subtract the empty prompt",
            SinglePromptWarning,
            stacklevel=2,
        )
    return found


def space_token(adapter: Adapter) -> int:
    """The token of a single space, which shorter prompts are padded with.

    Raises:
        ValueError: If the tokenizer has none.
    """
    tokenizer = adapter.tokenizer
    for piece in ("\u0120", "\u2581", " "):  # GPT-2's way of writing it, SentencePiece's, and the plain one
        token: int | None = tokenizer.convert_tokens_to_ids(piece)
        if token is not None and token != tokenizer.unk_token_id:
            return token
    raise ValueError(
        f"the tokenizer of {adapter.name} has no token of a single space to pad the shorter prompt with: give two "
        "prompts of as many tokens"
    )


def _ids(adapter: Adapter, text: str) -> list[int]:
    bos: int | None = adapter.tokenizer.bos_token_id
    if not text and (bos is None or not adapter.prepends_bos):
        return []
    return list(format_prompt(adapter, text, prompt_format="plain").ids)


def _provenance(model: HookedModel, prompts: str) -> Provenance:
    info = model_info(model)
    known = Provenance.unknown(info.name, hook_point="hook_resid_pre", read_position="every", prompt_format="plain")
    return replace(
        known,
        model_fingerprint=info.fingerprint,
        weight_processing=info.weight_processing,
        dtype=info.dtype,
        dataset=prompts,
        n_pairs=1,
        method="activation addition",
        versions=package_versions(),
    )
