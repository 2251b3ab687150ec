"""The report of a run: `render` makes one self-contained page out of a `ReportData`; `claims` keeps what was shown."""
