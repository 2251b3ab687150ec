"""From small runs to a prediction of the large one: records, laws with intervals, forecasts, ladders of runs."""
