"""`caa-lens skills`: a vector between two kinds of text, and what adding it costs each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_lens.cli import options
from caa_lens.cli.output import check_frame_path, check_path, save_frame, show_frame, show_json

_DOCUMENTS = "facts, opinions or neutral (bundled), a .txt with a document a line, or a .json."


def skills(
    model: options.Model,
    *,
    over: Annotated[str, typer.Option(help="Read the last token of a document, or every: last or every.")] = "last",
    keep: Annotated[
        float, typer.Option(help="Stop where the other text keeps less than this share of its accuracy; 0: never.")
    ] = 0.0,
    leave_out: Annotated[int, typer.Option(min=0, help="Set the so many largest dimensions of the vector to 0.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=2, help="Cut documents to so many tokens.")] = None,
    target: Annotated[str, typer.Option(help=f"Documents of the skill: {_DOCUMENTS}", rich_help_panel="Data")],
    other: Annotated[str, typer.Option(help=f"Documents of another kind: {_DOCUMENTS}", rich_help_panel="Data")],
    layer: options.Layer,
    coefficients: options.Coefficients = "0,-0.5,-1,-2,-5,-10,-20,-50",
    site: options.Site = "resid_post",
    nulls: options.Nulls = 20,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    save: Annotated[
        Path | None, typer.Option(help="Save the vector as .safetensors.", rich_help_panel="Output")
    ] = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a vector of one kind of text minus another, and measure what taking it away costs both.

    The vector is made on every other document and measured on the rest, beside vectors with permuted dimensions; a
    negative coefficient takes the skill away. Losses are shares of the unsteered top-1 accuracy; the tax is the other
    text's loss for each unit of the target's.

    For example:

        caa-lens skills organism-chat --target opinions --other facts --layer 2 --over every

        caa-lens skills organism-chat --target code.txt --other text.txt --layer 3 --keep 0.8 --leave-out 2 --out t.csv
    """
    check_frame_path(out)
    check_path(save, ".safetensors")
    options.check_nulls(nulls)
    from caa_lens.protocols.broad_skills.curve import check_curve
    from caa_lens.protocols.broad_skills.making import check_over

    check_over(over)
    steps = check_curve(options.parse_multipliers(coefficients), nulls, keep)
    from caa_lens.datasets.texts import load_texts

    sides = {"target": load_texts(target), "other": load_texts(other)}
    if few := [kind for kind, texts in sides.items() if len(texts) < 2]:
        raise ValueError(f"there is one {few[0]} document: give two or more, as half of them are measured on")
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import massive_dimensions, without_dimensions
    from caa_lens.protocols.broad_skills import alignment_tax, skill_curve, skill_vectors

    made, measured = ([texts[start::2] for texts in sides.values()] for start in (0, 1))
    form: Any = {"max_tokens": max_tokens, "batch_size": batch_size, "progress": not quiet}
    name, how = f"{Path(target).stem} minus {Path(other).stem}", dict[str, Any](over=over, layers=[layer], site=site)
    vectors = skill_vectors(loaded, *made, name=name, **how, **form)
    largest = massive_dimensions(vectors, k=max(3, leave_out))
    if leave_out:
        vectors = without_dimensions(vectors, largest["dimension"].tolist()[:leave_out])
    if save is not None:
        vectors.save(save)
    curve = skill_curve(
        loaded, vectors[layer], *measured, coefficients=steps, n_nulls=nulls, keep=keep, seed=seed, **form
    )
    table = alignment_tax(curve, seed=seed)
    if out is not None:
        save_frame(table, out)
    if as_json:
        show_json({"table": table.to_dict("records"), "largest_dimensions": largest.to_dict("records")})
        return
    shares = ", ".join(f"{row['dimension']} ({row['share']:.0%})" for row in largest.to_dict("records"))
    typer.echo(
        f"{vectors.name}: {vectors.provenance.dataset_origin}\nlargest dimensions: {shares}"
        f"{f'; {leave_out} left out' if leave_out else ''}\n"
    )
    show_frame(table, as_json=False)
    stopped = [step for step in steps if step and step not in set(table["coefficient"])]
    if stopped:
        typer.echo(f"\nnot tried, as the other text had fallen below {keep:.0%} of its accuracy: {stopped}")
    for file in (save, out):
        if file is not None:
            typer.echo(f"\nwritten to {file}")
