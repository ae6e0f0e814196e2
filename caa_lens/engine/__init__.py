"""How many ways of steering are run at once: KV caches, block-diagonal (tree) attention masks, hooks, memory.

Internal: names here may change without a word in the changelog. Only this folder knows that there are KV caches and
block masks. What runs a model in the folders above imports it; it knows token ids and edits of activations, but no
dataset, no prompt format and no statistic.
"""
