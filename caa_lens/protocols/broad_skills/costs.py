"""What a coefficient takes from each kind of text, beside what permuted vectors take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caa_lens.evaluation.statistics import Resampled, against_nulls, direction, mean_of, quantile_interval, resampled
from caa_lens.protocols.broad_skills.making import KINDS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_NEEDED = ("kind", "draw", "layer", "coefficient", "text_kind", "document", "n_tokens", "n_correct")
_OWN = -1  # the draw of what is no null


def summarize_skill(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Accuracy on both kinds of text at every coefficient, beside the controls'.

    Args:
        frame: As `skill_curve` returns it.
        n_bootstrap: Resamplings of the documents.
        seed: Of the resampling.

    Returns:
        One row for each ``layer`` x ``coefficient`` x ``text_kind``, with ``n_documents``, ``n_tokens``; ``accuracy``
        (right tokens of all counted) with its 95 % bootstrap interval over documents; ``accuracy_lost``, the unsteered
        accuracy minus it, with the interval over the same documents, ``accuracy_lost_low`` to ``accuracy_lost_high``;
        and for the permuted vectors ``n_permuted``, the mean and the range of their accuracies, ``permuted_mean``,
        ``permuted_low`` and ``permuted_high`` (2.5 and 97.5 % quantiles), and ``worse_than_permuted``: the share of
        them that lose less. NaN at 0.

    Raises:
        ValueError: If the frame is not one of `skill_curve`.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for kind, hits, n_tokens, documents in _tables(frame, n_bootstrap, seed):
        unsteered = hits[_OWN, 0.0]
        for (draw, coefficient), right in hits.items():
            if draw != _OWN:
                continue
            row: dict[str, Any] = {"layer": int(frame["layer"].iloc[0]), "coefficient": coefficient, "text_kind": kind}
            row |= {"n_documents": len(right), "n_tokens": int(n_tokens.sum())}
            row |= documents.ratio(right, n_tokens).columns("accuracy")
            row |= documents.ratio(unsteered - right, n_tokens).columns("accuracy_lost")
            others = [hits[other] for other in hits if other[0] != _OWN and other[1] == coefficient]
            null = [float(each.sum() / n_tokens.sum()) for each in others]
            row |= against_nulls(row["accuracy"], null, tail="less").columns("permuted", "worse_than")
            rows.append(row | {"permuted_mean": mean_of(null)})
    return pd.DataFrame(rows).sort_values(["text_kind", "coefficient"], ascending=[False, True], ignore_index=True)


def alignment_tax(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What each coefficient takes from the target, and what the other text pays for it.

    Args:
        frame: As `skill_curve` returns it.
        n_bootstrap: Resamplings of the documents, of each kind apart.
        seed: Of the resampling.

    Returns:
        One row for each coefficient other than 0, with ``layer``, ``coefficient``; ``lost_target`` and ``lost_other``,
        each the share of the unsteered accuracy that is lost; ``apart``, the first minus the second, with its 95 %
        interval ``apart_low`` to ``apart_high``: above 0 where the target suffers more; ``tax``, the second divided by
        the first, NaN where the interval of the target's loss does not lie above 0, since nothing was bought; and
        ``n_permuted``, ``permuted_low``, ``permuted_high``, ``beats_permuted`` of ``apart``: the range of the permuted
        vectors', and the share of them that it exceeds in the direction in which the coefficient pushes: upwards for
        negative ones. A positive coefficient pushes towards the target, where ``apart`` is expected to be below 0.

    Raises:
        ValueError: If the frame is not one of `skill_curve`, or the unsteered model gets nothing right.
    """
    import numpy as np
    import pandas as pd

    lost: dict[str, dict[tuple[int, float], tuple[float, np.ndarray]]] = {}
    for kind, hits, _, documents in _tables(frame, n_bootstrap, seed):
        unsteered = hits[_OWN, 0.0]
        if not unsteered.sum():
            raise ValueError(f"the unsteered model gets no token of the {kind} text right: there is nothing to lose")
        draws = documents.draws
        drawn = np.maximum(unsteered[draws].sum(axis=1), 1)
        lost[kind] = {
            key: (1 - right.sum() / unsteered.sum(), 1 - right[draws].sum(axis=1) / drawn)
            for key, right in hits.items()
        }
    rows: list[dict[str, Any]] = []
    for draw, coefficient in lost["target"]:
        if draw != _OWN or not coefficient:
            continue
        (target, of_target), (other, of_other) = (lost[kind][draw, coefficient] for kind in KINDS)
        low, high = quantile_interval(of_target - of_other)
        row: dict[str, Any] = {"layer": int(frame["layer"].iloc[0]), "coefficient": coefficient}
        row |= {"lost_target": target, "lost_other": other}
        row |= {"apart": target - other, "apart_low": low, "apart_high": high}
        row |= {"tax": other / target if quantile_interval(of_target)[0] > 0 else float("nan")}
        keys = [key for key in lost["target"] if key[0] != _OWN and key[1] == coefficient]
        null = [lost["target"][key][0] - lost["other"][key][0] for key in keys]
        rows.append(row | against_nulls(row["apart"], null, tail=direction(-coefficient)).columns("permuted", "beats"))
    return pd.DataFrame(rows).sort_values("coefficient", ignore_index=True)


def _tables(frame: pd.DataFrame, n_bootstrap: int, seed: int) -> list[tuple[str, Any, np.ndarray, Resampled]]:
    """For each kind: right tokens ``[document]`` by vector and coefficient, counted tokens, and bootstrap draws."""
    if missing := sorted(set(_NEEDED) - set(frame.columns)):
        raise ValueError(f"this is not a frame of skill_curve(): it lacks the columns {', '.join(missing)}")
    if frame["layer"].nunique() != 1 or set(frame["text_kind"]) != set(KINDS):
        raise ValueError("the frame must be of one layer and of both kinds of text: give what skill_curve() returns")
    found: list[tuple[str, Any, np.ndarray, Resampled]] = []
    for place, kind in enumerate(KINDS):
        part = frame[frame["text_kind"] == kind]
        if (_OWN, 0.0) not in set(zip(part["draw"], part["coefficient"], strict=True)):
            raise ValueError("the frame has no rows of the kind 'vector' at coefficient 0, against which losses are")
        table = part.pivot(index="document", columns=["draw", "coefficient"], values="n_correct").sort_index()
        n_tokens = part.drop_duplicates("document").set_index("document")["n_tokens"].reindex(table.index).to_numpy()
        hits = {(int(draw), float(step)): table[draw, step].to_numpy() for draw, step in table.columns}
        found.append((kind, hits, n_tokens, resampled(len(table), n_bootstrap, [seed, place])))
    return found
