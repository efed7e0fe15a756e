"""The saved model, loaded anew from disk, beside the live one on a real row."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignkit import models
from alignkit.models.saving import fits_base, own_generation, write
from alignkit.proofs import log_probs
from alignkit.proofs.record import Finding
from alignkit.run import writing
from alignkit.train.proving import merged
from alignkit.train.proving.batches import LONGEST, batch_of
from alignkit.train.proving.rows import bare, sharded, still
from alignkit.train.proving.subject import Subject

FEW = 3  # tensors of a trial save


def prove_model(subject: Subject) -> Finding | None:
    """Claim `saved_model`, of model/."""
    return prove_folder(subject, subject.run.model)


def prove_folder(subject: Subject, folder: Path) -> Finding | None:
    """Whether a saved model computes what the live one computes."""
    if not subject.run.writes:
        return None
    if subject.config.model.quantize is not None:
        return Finding(
            unproven="the trained weights were quantised, the saved ones are not"
        )
    return _beside(subject, lambda: _loaded(subject, str(folder)), f"{folder}")


def prove_adapter(subject: Subject) -> Finding | None:
    """Claim `saved_adapter`, of model/adapter on the base as it is on disk."""
    if subject.config.model.lora is None or not subject.run.writes:
        return None
    live = subject.trainer.accelerator.unwrap_model(subject.trainer.model)
    if not fits_base(live):
        return Finding(
            unproven="none is saved: its start changed the base model; model/ is whole"
        )
    if subject.config.model.quantize is not None:
        return Finding(
            unproven="the trained weights were quantised, the base on disk is not"
        )
    folder = subject.run.model / "adapter"

    def adapted() -> Any:
        from peft import PeftModel

        base = _loaded(subject, live.active_peft_config.base_model_name_or_path)
        return PeftModel.from_pretrained(base, folder)

    return _beside(subject, adapted, f"{folder} on its base")


def prove_tokenizer(subject: Subject) -> Finding | None:
    """Claim `saved_tokenizer`: the texts of the first rows become the same tokens, and
    the same tokens end a response.
    """
    if not subject.run.writes:
        return None
    return _tokenizer(subject, subject.run.model)


def prove_trial(subject: Subject) -> Finding | None:
    """Claim `trial_save`: all but most of the weights, before anything is trained."""
    if not subject.run.writes:
        return None
    if reason := sharded(subject.trainer):
        return Finding(unproven=reason)
    with still(subject.trainer) as model, tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        names = sorted(model.state_dict(), key=lambda n: model.state_dict()[n].numel())
        few = {name: model.state_dict()[name].clone() for name in names[:FEW]}
        with writing(folder):
            write(model, subject.tokenizer, folder, state_dict=few)
        if fault := _unequal_tensors(few, folder) or _unequal_config(model, folder):
            return Finding(fault=fault, cure="The model could not be saved as it is.")
        return _tokenizer(subject, folder)


def _unequal_tensors(few: dict[str, Tensor], folder: Path) -> str:
    from safetensors.torch import load_file

    read: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        read |= load_file(file)
    plain = {name.replace(".base_layer", ""): tensor for name, tensor in few.items()}
    for name, tensor in plain.items():
        other = read.get(name, read.get(name.removeprefix("model.")))
        if other is not None and not torch.equal(other, tensor.cpu()):
            return f"{name} is another tensor once it is saved"
    return "" if read else "no tensor was saved"


def _unequal_config(model: Any, folder: Path) -> str:
    from transformers import AutoConfig

    saved = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    live = model.config.to_dict()
    # of what is told apart, none changes what the model computes
    told = {"_name_or_path", "transformers_version", "dtype", "architectures"}
    told |= {"use_cache"}
    wrong = [key for key in live if key not in told and saved.get(key) != live[key]]
    return f"config.json reads otherwise in {', '.join(wrong)}" if wrong else ""


def _tokenizer(subject: Subject, folder: Path) -> Finding:
    """A saved tokenizer beside the live one."""
    live, saved = subject.tokenizer, models.load_tokenizer(str(folder))
    texts = [str(v) for row in subject.rows for v in row.values() if isinstance(v, str)]
    wrong = [text for text in texts if live(text).input_ids != saved(text).input_ids]
    if wrong:
        return Finding(
            value=float(len(wrong)),
            unit="texts",
            fault=f"the saved tokenizer reads {wrong[0][:60]!r} as other tokens",
            cure=f"See {folder}.",
        )
    for name in ("eos_token_id", "pad_token_id", "bos_token_id", "chat_template"):
        one, other = getattr(live, name), getattr(saved, name)
        if one != other:
            return Finding(
                fault=f"the saved tokenizer's {name} is {other!r}, the run's {one!r}",
                cure=f"See {folder}.",
            )
    return _generation(subject, folder, len(texts))


def _generation(subject: Subject, folder: Path, texts: int) -> Finding:
    from transformers import GenerationConfig

    model = subject.trainer.accelerator.unwrap_model(subject.trainer.model)
    own = own_generation(bare(model)).to_diff_dict()
    saved = GenerationConfig.from_pretrained(folder).to_diff_dict()
    told = {"transformers_version", "_from_model_config"}
    wrong = [k for k in own.keys() | saved.keys() if own.get(k) != saved.get(k)]
    wrong = sorted(set(wrong) - told)
    if wrong:
        return Finding(
            fault=f"generation_config.json reads otherwise in {', '.join(wrong)}",
            cure=f"See {folder}.",
        )
    return Finding(value=0.0, unit="texts", note=f"{texts} texts read alike")


def _beside(subject: Subject, load: Callable[[], Any], what: str) -> Finding:
    """The log-probs of a real row by what is loaded, and by the live model."""
    if reason := sharded(subject.trainer):
        return Finding(unproven=reason)
    trainer = subject.trainer
    with still(trainer) as model:
        batch = batch_of(subject)
        if not batch.documents:
            return Finding(unproven="the first rows hold no token that is trained on")
        document = batch.documents[-1]
        ids = batch.ids[document.row, document.columns][:LONGEST]
        whole = trainer.accelerator.unwrap_model(trainer.model)
        live, padded = (
            log_probs.alone(whole, ids, 1.0, padding).cpu()
            for padding in (0, log_probs.PADDING)
        )
        noise, dtype = log_probs.spread([padded], [live]), model.dtype
    other = load()
    wrong, rounded = _unequal_weights(whole, other)
    device = _place(trainer, other)
    saved = log_probs.alone(other.to(device).eval(), ids.to(device), 1.0).cpu()
    del other
    value = log_probs.spread([saved], [live])
    tolerance = log_probs.allowed(noise, dtype, float(live.abs().max()))
    elsewhere = device != trainer.accelerator.device
    notes = [f"computed on the {device}"] if elsewhere else []
    note = "; ".join([*notes, *filter(None, [rounded])])
    fault = ""
    if not value <= tolerance:
        fault = f"{what} is another model than the one that was trained"
    elif wrong:
        shown = ", ".join(wrong[:FEW])
        fault = f"{what} holds other weights than were trained: {len(wrong)} ({shown})"
    return Finding(
        value=value,
        tolerance=tolerance,
        unit="nats per token",
        note=note,
        fault=fault,
        cure="The checkpoints, where there are any, hold the trained weights.",
    )


def _unequal_weights(live: Any, saved: Any) -> tuple[list[str], str]:
    """Names of tensors that are not the live ones, to the bit, or, where an adapter was
    merged, to rounding; and a note.
    """
    from peft import PeftModel

    if isinstance(live, PeftModel) and not isinstance(saved, PeftModel):
        return merged.unequal(live, saved)
    known, read = live.state_dict(), saved.state_dict()
    trained = {n for n, weight in live.named_parameters() if weight.requires_grad}
    lacking = trained - read.keys()
    differing = [
        name
        for name, tensor in read.items()
        if name not in known
        or not torch.equal(tensor.to(known[name]), known[name].detach())
    ]
    return sorted(lacking) + differing, ""


def _loaded(subject: Subject, source: str) -> Any:
    stated = subject.config.model
    live = subject.trainer.accelerator.unwrap_model(subject.trainer.model)
    model, _ = models.load(
        source,
        dtype=str(live.dtype).removeprefix("torch."),
        attention=stated.attention,
        revision=None if Path(source).is_dir() else stated.revision,
    )
    return model


def _place(trainer: Any, model: Any) -> torch.device:
    """Where a second model has room."""
    device: torch.device = trainer.accelerator.device
    if device.type == "cuda":
        size = sum(w.numel() * w.element_size() for w in model.parameters())
        free, _ = torch.cuda.mem_get_info(device)
        if free < 1.2 * size:
            return torch.device("cpu")
    return device
