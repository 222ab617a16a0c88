"""Shows what the harness measured: tables, figures, HTML, Markdown and JUnit.

Nothing is imported here, so that the command line can say what is missing where an extra is not installed:
`reports.render.render`, `reports.merge.merge` and `reports.compare.compare` are the ways in.
"""
