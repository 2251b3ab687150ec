"""Training: one loop, small objectives, packing, checkpoints, guards. Nothing about where the data came from.

settings = TrainSettings(steps=1000, batch_tokens=32_768, seq_len=512)
rows = TokenStream(Shards.open(folder), settings.seq_len, settings.seed)
result = train(model, LanguageModelling(), Batches(rows, settings), settings, folder, progress)
"""
