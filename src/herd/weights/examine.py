"""What lies in a model folder or file, and what is wrong with it: the findings behind `herd inspect MODEL`.

    report = examine(Path("Llama-3.1-8B-Instruct"), values=True)
    report.wrong                 # [Fault("generation_config.json does not stop at <|eot_id|> (128009)", "add ...")]

The faults are those on which users of Llama 3.1 lose days: an end token that nothing stops at, RoPE scaling or theta
that is not there, a template that is missing, files cut short. Headers only, unless the values are asked for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from herd.errors import HerdError
from herd.files import read_json
from herd.llama.config import LlamaConfig, RopeScaling, llama31_8b, llama31_70b, llama31_405b
from herd.progress import Progress, Silent
from herd.weights.config_json import NO_BIASES
from herd.weights.examination import DOWNLOAD, Examination, Fault
from herd.weights.examine_text import look_at_text
from herd.weights.examine_values import checklist_faults, value_faults
from herd.weights.registry import detect, open_stored
from herd.weights.stored import FP8, TIED, StoredModel, faults

_SMALL = replace(llama31_8b(), rope_scaling=RopeScaling(factor=32.0), ffn_dim=8192, tie_embeddings=True)
_RELEASED = {
    "Llama 3.1 8B": llama31_8b(),
    "Llama 3.1 or 3.3 70B": llama31_70b(),
    "Llama 3.1 405B": llama31_405b(),
    "Llama 3.2 1B": replace(_SMALL, dim=2048, n_layers=16),
    "Llama 3.2 3B": replace(_SMALL, dim=3072, n_layers=28, n_heads=24),
}
_STRETCHED = 8192  # a longer context of Llama 3 needs RoPE scaling


def examine(path: Path, *, values: bool = False, progress: Progress | None = None) -> Examination:
    """Look at the model at `path`. ArtifactError if no format is found; everything else becomes a fault."""
    report = Examination(path, [form.name for form in detect(path)])
    report.formats += [f"{form.name} (in original/)" for form in detect(path / "original")]
    try:
        _, report.model = open_stored(path)
    except HerdError as error:
        if not report.formats:
            raise
        report.wrong.append(Fault(f"{error.message} [{error.where}]", error.mend or DOWNLOAD))
        return report
    model = report.model
    report.notes += model.notes
    report.released = next((name for name, config in _RELEASED.items() if config == model.config), "")
    _look_at_tensors(report, model)
    _look_at_rope(report, model.config)
    look_at_text(report, model)
    if model.config_file == "config.json" and path.is_dir() and report.formats[0] != "checkpoint":
        _look_at_hf(report, model)
    if values:
        found = [*value_faults(model, progress or Silent()), *checklist_faults(path)]
        report.wrong += [Fault(fault, DOWNLOAD) for fault in found]
    return report


def _look_at_tensors(report: Examination, model: StoredModel) -> None:
    """Missing, unexpected and mis-shaped ones: many of a kind have one cause, and get one line."""
    kinds: dict[str, list[str]] = {}
    for fault in faults(model.config, model.tensors, model.config_file):
        kinds.setdefault(fault.split(":")[0], []).append(fault)
    for kind, found in kinds.items():
        listed = "; ".join(fault.removeprefix(kind + ": ") for fault in found[:3])
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        report.wrong.append(Fault(f"{kind}: {listed}{more}", _mend_of_tensors(model)))


def _mend_of_tensors(model: StoredModel) -> str:
    names = model.tensors.keys()
    if "embed_tokens.weight" in names:
        return "these are the names of a LlamaModel without its head: save the LlamaForCausalLM instead"
    if TIED not in names and not model.config.tie_embeddings and len(names) == model.config.tensors() - 1:
        return f"if this is a tied model (Llama 3.2 1B, 3B), {model.config_file} should say tie_word_embeddings true"
    if any(name.endswith(".bias") for name in names):
        return NO_BIASES
    layers = {name.split(".")[2] for name in names if name.startswith("model.layers.")}
    if layers and len(layers) != model.config.n_layers:
        return f"{model.config_file} says {model.config.n_layers} layers, the files have {len(layers)}; {DOWNLOAD}"
    return DOWNLOAD


def _look_at_rope(report: Examination, config: LlamaConfig) -> None:
    if config.rope_scaling is None and config.max_seq_len > _STRETCHED:
        report.wrong.append(
            Fault(
                f"a context of {config.max_seq_len:,} without rope_scaling: past {_STRETCHED:,} positions a Llama 3.1 "
                "model is wrong, and before them it is slightly so",
                'Llama 3.1 has {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, '
                '"original_max_position_embeddings": 8192}; a model that has none says its true context',
            )
        )


def _look_at_hf(report: Examination, model: StoredModel) -> None:
    """Keys whose absence other readers fill with numbers of Llama 1, and files that contradict each other."""
    content = read_json(report.path / "config.json")
    rope = content.get("rope_parameters") or {}
    if "rope_theta" not in content and "rope_theta" not in rope:
        report.wrong.append(
            Fault("config.json has no rope_theta: readers take Llama 1's 10,000", 'Llama 3 has "rope_theta": 500000.0')
        )
    if "rms_norm_eps" not in content:
        report.wrong.append(
            Fault("config.json has no rms_norm_eps: readers take 1e-6", 'Llama 3 has "rms_norm_eps": 1e-05')
        )
    if "generation_config.json" not in model.files:
        report.wrong.append(
            Fault("no generation_config.json: readers fall back on one end token", "take the released model's")
        )
    stated = content.get("torch_dtype", content.get("dtype"))
    kinds = {str(e.dtype).removeprefix("torch.") for e in model.tensors.values() if e.dtype != FP8}
    if isinstance(stated, str) and kinds and stated not in kinds:
        report.notes.append(f"config.json says {stated}, the tensors are {', '.join(sorted(kinds))}")
    read = {entry.place for entry in model.tensors.values()}
    loose = sorted(p.name for p in report.path.glob("model*.safetensors") if p.name not in read)
    if loose:
        report.notes.append(f"nothing is read from {', '.join(loose[:4])}" + (" and others" if len(loose) > 4 else ""))
