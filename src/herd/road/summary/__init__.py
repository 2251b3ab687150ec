"""Stage `summary`: what the whole run made and showed, out of every other stage's folder.

    folders        the stages' folders and the files in them; any stage may be missing in a smaller recipe
    claims         the claims of a run, each from the numbers in those folders      scored_claims: those about scores
    announcement   the announcement line by line                                    abilities: its lines about scores
    corpus training posttraining scores conversations lineage                       the sections of the report

Artifacts: claims.json, report.json (the data of the report), report.html. Nothing is measured here: a number that is
not in a stage's folder is not in the report.
"""

from herd.road.summary.stage import run

__all__ = ["run"]
