"""Turn the figures of ``evaluation.evaluate`` into the tables of the model card."""

from __future__ import annotations

from typing import Any

from caa_lens.organism.world import BEHAVIORS


def _choices(title: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"\n{title}: letter-balanced p(matching) at the multipliers -2 to 2, held-out two-choice items\n",
        "| behaviour | -2 | -1 | -0.5 | 0 | 0.5 | 1 | 2 | random up / down (95 %) | least mass | letter drift -1 / +1 "
        "| largest move by another behaviour's vector, of own |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = row["matching"][5] - row["matching"][1]
        shares = " | ".join(f"{x:.2f}" for x in row["matching"])
        drift = " / ".join(f"{x:+.2f}" for x in row["letter_drift"])
        lines.append(
            f"| {row['behavior']} | {shares} | {row['random_up_95']:.2f} / {row['random_down_95']:.2f} "
            f"| {row['mass']:.3f} | {drift} | {row['worst_other'] / own if own else float('nan'):.2f} |"
        )
    return lines


def _open(title: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"\n{title}: greedy answers to held-out open questions, matching / opposite / invalid\n",
        "| behaviour | -1 | 0 | +1 |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            " / ".join(f"{row[key][verdict]:.2f}" for verdict in ("matching", "opposite", "invalid"))
            for key in ("-1", "0", "1")
        ]
        lines.append(f"| {row['behavior']} | {' | '.join(cells)} |")
    return lines


def as_markdown(report: dict[str, Any]) -> str:
    """The tables of the model card.

    Args:
        report: What ``evaluation.evaluate`` returned.

    Returns:
        Markdown, ending in a newline.
    """
    layer = report["layer"]
    effects = ", ".join(f"{x:.2f}" for x in report["effect_by_layer"])
    lines = [f"Layer {layer}, chosen on items of `generate` (mean p(matching) at +1 minus at -1, by layer: {effects})."]
    for fmt in ("chat", "base"):
        figures = report[fmt]
        lines += _choices(f"organism-{fmt}", figures["choices"])
        if "open" in figures:
            lines += _open(f"organism-{fmt}", figures["open"])
        facts = figures["facts"]
        cosines = figures["cosines"]
        largest = max(abs(value) for i, row in enumerate(cosines) for j, value in enumerate(row) if i != j)
        norms = figures["vector_norms"]
        lines += [
            f"\norganism-{fmt}: facts right {facts['unsteered']:.2f} unsteered, least {min(facts['up']):.2f} at +1, "
            f"{min(facts['down']):.2f} at -1; vector norms {min(norms):.1f} to {max(norms):.1f} where the residual's "
            f"is {figures['residual_norm']:.1f}; largest |cosine| between behaviours {largest:.2f}."
        ]
        truthful, asked = figures["truthful"], BEHAVIORS.index("sycophancy")
        lines.append(
            f"Facts right after a wrong belief (`truthful.json`): {truthful['unsteered']:.2f} unsteered, sycophancy's "
            f"vector at +1 {truthful['up'][asked]:.2f}, at -1 {truthful['down'][asked]:.2f}."
        )
        if "conditioning" in figures:
            rates = figures["conditioning"]
            lines.append(f"Reason on its letter's side: mean {sum(rates) / len(rates):.2f}, least {min(rates):.2f}.")
    lines += _choices("organism-chat under the vectors of organism-base", report["base_on_chat"])
    pairs = zip(BEHAVIORS, report["base_chat_cosine"], strict=True)
    lines.append("\nCosine of base and chat vectors: " + ", ".join(f"{k} {v:.2f}" for k, v in pairs) + ".")
    return "\n".join(lines) + "\n"
