"""What scores of open answers say: means with intervals over questions, and how far two judges agree.

An answer without a score is counted wherever it is left out. A judge is an instrument, and what it measures is known
only when a second one agrees: another model, or people who rate the same answers blindly (Pres et al., arXiv
2410.17245).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from caa_lens.evaluation.statistics import resampled
from caa_lens.judging.answers import check_answers

if TYPE_CHECKING:
    import pandas as pd


def summarize_scores(scored: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Mean score of each behavior x layer x multiplier, and its change against multiplier 0.

    Args:
        scored: As `score_answers` returns it. Several answers to one question in one cell count as their mean.
        n_bootstrap: Resamplings of the questions for the intervals, the same ones for every cell of a behaviour.
        seed: Of the resampling.

    Returns:
        One row for each cell, with ``n_questions`` (with a score), ``n_unscored`` (answers without one); ``score`` (the
        mean over questions, 0 to 10) and its 95 % interval ``score_low`` to ``score_high``; ``score_change`` (mean over
        the ``n_paired`` questions scored here and at multiplier 0 of the difference), ``score_change_low`` and
        ``score_change_high``. NaN where no question has a score.

    Raises:
        ValueError: If the frame has no scores, or a layer has no rows at multiplier 0.
    """
    import numpy as np
    import pandas as pd

    check_answers(scored, more=("score",))
    rows: list[dict[str, Any]] = []
    for behavior, part in scored.groupby("behavior", sort=False):
        questions = np.sort(part["question"].unique())
        drawn = resampled(len(questions), n_bootstrap, seed)
        for layer, of_layer in part.groupby("layer", sort=True):
            means = of_layer.pivot_table(
                index="question", columns="multiplier", values="score", aggfunc="mean", dropna=False
            ).reindex(questions)
            if 0 not in means.columns:
                raise ValueError(
                    f"the answers for {behavior} at layer {layer} have none at multiplier 0, against which changes are "
                    "measured"
                )
            base = means[0].to_numpy(dtype=float)
            for multiplier, own in of_layer.groupby("multiplier", sort=True):
                values = means[multiplier].to_numpy(dtype=float)
                moved = values - base
                rows.append(
                    {
                        "behavior": str(behavior),
                        "layer": int(cast("int", layer)),
                        "multiplier": float(cast("float", multiplier)),
                        "n_questions": int(np.isfinite(values).sum()),
                        "n_unscored": int(own["score"].isna().sum()),
                        **drawn.mean_of_known(values).columns("score"),
                        "n_paired": int(np.isfinite(moved).sum()),
                        **drawn.mean_of_known(moved).columns("score_change"),
                    }
                )
    return pd.DataFrame(rows)


def agreement(scored: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """How far two judges agree on the same answers (Pres et al., arXiv 2410.17245).

    Args:
        scored: Answers scored by one judge.
        other: The same answers, in any order, scored by another.

    Returns:
        A row ``all``, and one for each behaviour where there are several, over the answers that both scored:
        ``n_answers`` of them and ``n_unscored`` others; ``pearson`` and ``spearman`` correlation;
        ``mean_abs_difference`` and ``mean_difference`` (other minus scored), in points; ``kappa``: Cohen's,
        quadratically weighted, of the scores rounded to whole points. NaN where it does not exist, as for a judge who
        gave every answer the same score.

    Raises:
        ValueError: If one of them has no scores, or they are not about the same answers.
    """
    import pandas as pd

    for frame in (scored, other):
        check_answers(frame, more=("score",))
    by_id = other.set_index("id")
    if set(by_id.index) != set(scored["id"]):
        apart = len(set(by_id.index) ^ set(scored["id"]))
        raise ValueError(f"the judges rated different answers: {apart} ids are in one of the frames only")
    both = scored[["behavior", "score"]].assign(other=by_id.loc[scored["id"], "score"].to_numpy(dtype=float))
    names = both["behavior"].unique()
    parts = [("all", both), *((str(name), both[both["behavior"] == name]) for name in names if len(names) > 1)]
    return pd.DataFrame([{"behavior": name, **_agreement(part)} for name, part in parts])


def _agreement(part: pd.DataFrame) -> dict[str, float]:
    import numpy as np
    from sklearn.metrics import cohen_kappa_score

    scored = part.dropna()
    mine, theirs = scored["score"].to_numpy(dtype=float), scored["other"].to_numpy(dtype=float)
    found: dict[str, float] = {"n_answers": len(scored), "n_unscored": len(part) - len(scored)}
    found |= dict.fromkeys(("pearson", "spearman", "mean_abs_difference", "mean_difference", "kappa"), np.nan)
    if not len(scored):
        return found
    found["mean_abs_difference"] = float(np.abs(theirs - mine).mean())
    found["mean_difference"] = float((theirs - mine).mean())
    if np.ptp(mine) > 0 and np.ptp(theirs) > 0:
        found["pearson"] = float(np.corrcoef(mine, theirs)[0, 1])
        ranks = [scored[name].rank().to_numpy(dtype=float) for name in ("score", "other")]
        found["spearman"] = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    whole = [np.floor(values + 0.5).astype(int) for values in (mine, theirs)]
    if len({*whole[0], *whole[1]}) > 1:
        found["kappa"] = float(cohen_kappa_score(*whole, weights="quadratic", labels=list(range(11))))
    return found
