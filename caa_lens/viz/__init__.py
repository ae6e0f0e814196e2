"""Pictures of values: plotly figures from DataFrames, and the page that a study ends in.

Nothing in here runs a model, or knows one: frames and tensors go in, so that whatever makes such frames may import
this. `figures` turns each frame of a study into one figure, `theme` makes them look alike, `save_figure` writes one as
a page or an image, and `page` sets a study's figures beside its numbers and steered texts. Plotly is imported when a
figure is made, not before. `tokens`, `steered_beside` and `roles` show texts token by token.

    import caa_lens as caa

    figure = caa.viz.figures.dose_response(summary)
    caa.viz.save_figure(figure, "effect.png")
    caa.viz.tokens(caa.analysis.project(model, texts, vectors)).save("tokens.html")
"""

from caa_lens.viz import figures as figures
from caa_lens.viz.images import save_figure as save_figure
from caa_lens.viz.token_views import TokenView as TokenView
from caa_lens.viz.token_views import roles as roles
from caa_lens.viz.token_views import stacked as stacked
from caa_lens.viz.token_views import steered_beside as steered_beside
from caa_lens.viz.token_views import tokens as tokens
