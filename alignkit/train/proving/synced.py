"""What the first syncs of weights with vLLM have shown."""

from __future__ import annotations

from alignkit.proofs.record import Finding
from alignkit.train.proving.subject import Subject


def prove_sync(subject: Subject) -> Finding | None:
    """Claim `sync`, after the first step. Every sync is proven by itself, and one that
    fails stops the run.
    """
    if not subject.trainer.use_vllm:
        return None
    generation = subject.trainer.vllm_generation
    if not generation.comparable:
        return Finding(
            unproven="the sampler's options change its distribution in a way that the"
            " trainer does not follow"
        )
    if generation.noise is None:
        return Finding(unproven="no log-prob of a sample could be compared")
    return Finding(
        value=generation.noise,
        unit="nats per token",
        note=f"{generation.compared} tensors read back",
    )
