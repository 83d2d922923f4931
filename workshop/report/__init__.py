"""The report: runs the lessons as they are, one process each, and tells what held in one HTML page.

`marks` is how a lesson talks to it, inside its own cell outputs; `run` executes one notebook; `reading` reads what
an executed notebook says; `page` writes the pages; `python -m workshop.report` puts them together.
"""
