"""The small language model, and how its candidates are sampled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from r2v_core.config.sections.base import Count, Positive, Section


class SLMConfig(Section):
    """The small language model."""

    model: str = Field("smollm2-135m-instruct", description="packaged name, local path or hub id")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the processor or GPU computes in it, else float32"
    )
    quantization: Literal["none", "4bit"] = Field("none", description="4bit needs a CUDA GPU and bitsandbytes")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention kernel")
    max_prompt_tokens: Positive = Field(
        320, description="largest number of tokens; older history is dropped, then each part is cut"
    )
    max_action_tokens: Positive = Field(16, description="largest number of tokens generated for one action")
    history_steps: Count = Field(4, description="past actions shown in the prompt")
    engine: str = Field(
        "transformers",
        description="what samples tokens: transformers (in this process), vllm (a server), scripted (no model)",
    )
    engine_options: dict[str, Any] = Field(default_factory=dict, description="the engine's own keys, which it checks")


class CandidatesConfig(Section):
    """Stage 4 and every rollout: K samples per state."""

    k: Annotated[int, Field(ge=2)] = Field(4, description="candidates per state (K)")
    temperature: float = Field(0.7, gt=0, description="sampling temperature")
    batch_size: Positive = Field(24, description="states for which actions are sampled together")
    max_states: Count = Field(160, description="number of states in stage 4; 0: all")
    rank_by: Literal["environment", "verifier"] = Field(
        "environment",
        description="what decides which of two candidates is better, for DPO; where the environment can't tell, the "
        "verifier decides",
    )
    scored_by: Literal["verifier", "judge"] = Field(
        "verifier", description="verifier: the trained verifier; judge: the language model of the section judge"
    )
