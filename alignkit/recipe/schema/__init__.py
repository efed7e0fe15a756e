"""Every key of a recipe: declared once, read by one walker."""

from alignkit.recipe.schema.generation import Generation, OwnGeneration, OwnVllm, Vllm
from alignkit.recipe.schema.key import Key, PluginSection, Section
from alignkit.recipe.schema.methods import (
    DPO,
    GRPO,
    METHODS,
    RLOO,
    SFT,
    Config,
    ExpertIteration,
    Pipeline,
    Policy,
    Sampled,
    Stage,
    Stepped,
    Trained,
)
from alignkit.recipe.schema.sections import (
    Advantage,
    Build,
    Dataset,
    Eval,
    Loss,
    Model,
    Prompt,
)

__all__ = [
    "DPO",
    "GRPO",
    "METHODS",
    "RLOO",
    "SFT",
    "Advantage",
    "Build",
    "Config",
    "Dataset",
    "Eval",
    "ExpertIteration",
    "Generation",
    "Key",
    "Loss",
    "Model",
    "OwnGeneration",
    "OwnVllm",
    "Pipeline",
    "PluginSection",
    "Policy",
    "Prompt",
    "Sampled",
    "Section",
    "Stage",
    "Stepped",
    "Trained",
    "Vllm",
]
