"""Pictures of values: plotly figures from DataFrames, and the page that a study ends in.

Nothing in here runs a model. `figures` turns each frame of a study into one figure, `theme` makes them look alike, and
`page` sets them beside the numbers and the steered texts. Plotly is imported when a figure is made, not before.
"""
