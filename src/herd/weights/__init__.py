"""Models on disk in Hugging Face's layout, written whole or not at all and read lazily.

    hf            save_model, load_model, load_config: what the other rooms call
    config_json   config.json and generation_config.json;   quantization   which layers of a folder are FP8
    fp8         the linear layer that an FP8 folder is read into
    tensors       safetensors files: one tensor in memory at a time

Not here: the tokenizer's files (`text/` writes them), Meta's own .pth layout, training checkpoints (`train/`).
"""
