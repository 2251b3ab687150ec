"""The road of a recipe: its stages, one file each, and the graph that joins them. The only place that joins rooms."""
