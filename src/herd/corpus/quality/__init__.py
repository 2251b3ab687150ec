"""Judging documents by models: small classifiers that are trained here, on labels of people, links or a judge."""
