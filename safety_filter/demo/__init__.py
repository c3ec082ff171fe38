"""The demo: starts the graph, runs scenes with and without the filter, reports."""
