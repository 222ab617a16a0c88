"""Shows what the harness measured: tables, figures, HTML, Markdown and JUnit."""
