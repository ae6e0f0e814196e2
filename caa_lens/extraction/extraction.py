"""From contrast pairs to vectors: the mean difference of activations at the answer's letter.

For each pair the same question is answered in two ways, one showing the behaviour and one not. The block outputs at the
token where the two answers differ are read, for all layers in one pass, and the vector is the mean over pairs of
positive minus negative (CAA, arXiv 2312.06681, section 3). Both answers share the question, so it is run once and only
the differing tokens are run for each. Sums are kept in float64 as the pairs go by, so memory does not grow with their
number; `extract_activations` keeps every pair's activations for those who want to look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.datasets.contrast import ContrastDataset, Pairs, as_dataset
from caa_lens.engine.branching import branch_residuals
from caa_lens.engine.packing import Branch
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import check_layers, model_info
from caa_lens.models.sites import check_site
from caa_lens.prompts import PromptFormat, common_prefix, default_format, format_prompt
from caa_lens.vectors.vectors import Provenance, SteeringVectors


@dataclass(frozen=True, slots=True)
class ContrastActivations:
    """The activations of every pair at the read position.

    Attributes:
        positive: float32, on the CPU, rows in the order of the pairs.
        negative: The same for the answers that do not show the behaviour.
        layers: The layer of each column.
        pair_ids: The index of each row's pair in the dataset.
        provenance: As a vector made from these would have it.
        name: The dataset's.
    """

    positive: Float[Tensor, "pair layer d_model"]
    negative: Float[Tensor, "pair layer d_model"]
    layers: tuple[int, ...]
    pair_ids: tuple[int, ...]
    provenance: Provenance
    name: str

    def vectors(self) -> SteeringVectors:
        """The mean difference, accumulated in float64."""
        mean = (self.positive.double() - self.negative.double()).mean(dim=0)
        return SteeringVectors(mean.float(), self.layers, self.provenance, self.name)


def extract_vectors(
    model: HookedModel,
    pairs: Pairs,
    *,
    layers: Sequence[int] | None = None,
    read: str | int = "answer_letter",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    site: str = "resid_post",
    batch_size: int | None = None,
    progress: bool | str = False,
) -> SteeringVectors:
    """Mean-difference vectors of a dataset, one per layer (CAA, section 3).

    Args:
        model: A TransformerBridge or a HookedTransformer.
        pairs: Contrast pairs.
        layers: None for all.
        read: Where to read: a role of the formatted prompt (its last token), or a position counted from either end.
        prompt_format: None chooses the tokenizer's chat template where there is one, else the paper's base format.
        system: A system prompt for every pair.
        site: Where in each block to read, and so where the vectors are used: ``resid_post`` for CAA, or ``resid_pre``,
            ``attn_out``, ``resid_mid``, ``mlp_out`` (see `caa_lens.models.sites`).
        batch_size: Pairs run at once; None chooses by their length and the free memory.
        progress: Show a progress bar, under this text where it is one.

    Raises:
        ValueError: For layers or a site the model lacks, no pairs, a role a pair does not have, or a pair whose two
            sides are the same up to the read position.
    """
    adapter, asked, pairs = adapt(model), check_places(model, layers, site), as_dataset(pairs)
    total = torch.zeros(len(asked), adapter.d_model, dtype=torch.float64)

    def add(signs: Tensor, items: Tensor, residuals: Tensor) -> None:
        total.add_(einsum(signs.double(), residuals.double(), "row, row layer d_model -> layer d_model"))

    _read(adapter, pairs, asked, add, read, prompt_format, system, site, batch_size, progress)
    provenance, name = _describe(model, pairs, read, prompt_format, system, site)
    return SteeringVectors((total / len(pairs)).float(), asked, provenance, name)


def extract_activations(
    model: HookedModel,
    pairs: Pairs,
    *,
    layers: Sequence[int] | None = None,
    read: str | int = "answer_letter",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    site: str = "resid_post",
    batch_size: int | None = None,
    progress: bool | str = False,
) -> ContrastActivations:
    """The activations themselves; arguments and errors as in `extract_vectors`.

    Takes ``2 x pairs x layers x d_model x 4`` bytes of memory.
    """
    adapter, asked, pairs = adapt(model), check_places(model, layers, site), as_dataset(pairs)
    sides = torch.empty(2, len(pairs), len(asked), adapter.d_model)

    def keep(signs: Tensor, items: Tensor, residuals: Tensor) -> None:
        sides[(signs < 0).long(), items] = residuals

    _read(adapter, pairs, asked, keep, read, prompt_format, system, site, batch_size, progress)
    provenance, name = _describe(model, pairs, read, prompt_format, system, site)
    return ContrastActivations(sides[0], sides[1], asked, tuple(range(len(pairs))), provenance, name)


def check_places(model: HookedModel, layers: Sequence[int] | None, site: str) -> tuple[int, ...]:
    """The layers asked for, ascending, all of them for None; or a ValueError where the model lacks one or its site."""
    adapter, asked = adapt(model), check_layers(model, layers)
    for layer in asked:
        check_site(adapter, layer, site)
    return asked


def _read(
    adapter: Adapter,
    pairs: ContrastDataset,
    layers: tuple[int, ...],
    receive: Callable[[Tensor, Tensor, Tensor], None],
    read: str | int,
    prompt_format: PromptFormat | None,
    system: str | None,
    site: str,
    batch_size: int | None,
    progress: bool | str,
) -> None:
    """Hand over, for some rows at a time: +1 or -1, the pair's index, and its residuals ``[row, layer, d_model]``."""
    prompts: list[tuple[int, ...]] = []
    branches: list[Branch] = []
    for index, pair in enumerate(pairs):
        sides: list[tuple[int, ...]] = []
        for answer in (pair.positive, pair.negative):
            formatted = format_prompt(adapter, pair.prompt, answer, prompt_format=prompt_format, system=system)
            try:
                sides.append(formatted.ids[: formatted.position(read) + 1])
            except ValueError as error:
                raise ValueError(f"pair {index}: {error}") from None
        if sides[0] == sides[1]:
            raise ValueError(
                f"pair {index}: its two sides are the same tokens up to the read position {read!r}, so their "
                "difference is zero: read further on, for example read='answer_end'"
            )
        shared = common_prefix(sides[0], sides[1], at_most=min(len(side) for side in sides) - 1)
        prompts.append(sides[0][:shared])
        branches += [Branch(index, side[shared:]) for side in sides]
    with tqdm(
        total=len(branches) // 2,
        desc=progress if isinstance(progress, str) else "extracting",
        unit="pair",
        disable=not progress,
    ) as bar:

        def sort_out(chunk: list[int], residuals: Tensor) -> None:
            rows = torch.tensor(chunk)  # the branches of pair i are 2i, positive, and 2i + 1, negative
            receive(1.0 - 2.0 * (rows % 2), rows // 2, residuals.cpu())
            bar.update(len(chunk) / 2)

        branch_residuals(adapter, prompts, branches, layers, sort_out, site=site, batch_size=batch_size)


def _describe(
    model: HookedModel,
    dataset: ContrastDataset,
    read: str | int,
    prompt_format: PromptFormat | None,
    system: str | None,
    site: str,
) -> tuple[Provenance, str]:
    info = model_info(model)
    provenance = Provenance(
        model=info.name,
        model_fingerprint=info.fingerprint,
        hook_point=f"hook_{site}",
        read_position=str(read),
        prompt_format=prompt_format or default_format(model),
        system_prompt=system,
        weight_processing=info.weight_processing,
        dtype=info.dtype,
        dataset=dataset.name,
        dataset_hash=dataset.hash,
        dataset_origin=dataset.origin,
        n_pairs=len(dataset),
        method="mean difference",
        seed=None,
        versions=package_versions(),
    )
    return provenance, dataset.name.partition("/")[0]  # a vector made on sycophancy/train is called sycophancy


def package_versions() -> dict[str, str]:
    """The versions that a provenance records."""
    found: dict[str, str] = {}
    for package in ("caa_lens", "torch", "transformers", "transformer-lens"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[package] = "unknown"
    return found
