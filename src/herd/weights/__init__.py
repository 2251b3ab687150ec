"""Models on disk, format by format, written whole or not at all and read lazily.

    hf          save_model, load_model, load_config: what the other rooms call
    registry    the formats (`format_hf`, `format_meta`, ...), detection, open_model;   formats   their protocol
    stored      StoredModel: what a model is between two formats;   build   a network out of one
    convert     from one format to another;   staging   folders in the making that survive a kill
    examine     what is wrong with a model;   prove   two of them compared on text
    config_json   config.json and generation_config.json;   herd_json   herd.json;   stated_numbers   checked
    quantization   which layers of a folder are FP8;   hf_fp8   their scales;   widen   FP8 as BF16
    fp8, q8_0, bf16   layers that stand in a built network where a linear one stood
    lora, frozen   adapters and their frozen base;   peft, peft_files   their folders
    tensors     safetensors files, written one tensor in memory at a time;   hf_files   read
    gguf_..., meta_..., pth   the files of the other formats

Not here: the tokenizer's files (`text/` writes them), training checkpoints (`train/`).
"""
