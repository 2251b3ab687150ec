"""Fine-tuning of an adopted model as stages: `graph` names them, `ask` and `train` run them.

ask      the served teacher's answers, kept as they come
train    model + data -> adapter and model
model    what a model must be to learn this way; it made ready: eight-bit base, adapter, recomputation
data     the dataset as the trainer wants it, with a part held out; `compact` keeps it small
teach    the distribution of a teacher in a folder beside the rows
save     adapter and model, and how much of what was learnt their dtype holds
spread   the model on many processes, of which none has it whole
preview  what `herd train --dry-run` says
"""
