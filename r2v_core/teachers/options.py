"""``teacher.options`` of each provider: what decides a teacher's answers."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from r2v_core.config.explain import explain, schema_keys
from r2v_core.config.schema import Count, Positive, Section
from r2v_core.errors import R2VError
from r2v_core.teachers.names import Provider


class ExpertOptions(Section):
    """The benchmark's own expert has none."""


class ApiOptions(Section):
    """A model behind an API; Anthropic's takes no temperature."""

    max_tokens: Positive = Field(
        512, description="largest number of tokens generated for one reply, reasoning included"
    )
    history_steps: Count = Field(
        10, description="latest steps shown with what was seen and done; earlier ones by their actions only"
    )


class OpenAIOptions(ApiOptions):
    """A model behind an API that speaks OpenAI's protocol."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        0.0, description="sampling temperature; null: leave it out, as models that fix their own demand"
    )


class LocalOptions(Section):
    """A causal language model in this process."""

    temperature: float = Field(
        0.1, ge=0, description="sampling temperature, 0: the likeliest token; random numbers come from the prompt"
    )
    max_tokens: Positive = Field(256, description="tokens generated at most for one reply")
    history_steps: Count = Field(4, description="latest steps shown with what was seen and done")
    max_prompt_tokens: Positive = Field(1024, description="largest number of tokens; earlier steps are dropped")
    batch_size: Positive = Field(16, description="prompts generated for together")
    quantization: Literal["none", "4bit"] = Field("none", description="4bit needs a CUDA GPU and bitsandbytes")
    engine: str = Field("transformers", description="what samples, a name of r2v_core.engines")
    engine_options: dict[str, Any] = Field(default_factory=dict, description="the engine's own keys, checked by it")


class TrainedOptions(Section):
    """A model that the stage train_teacher has trained. How it is prompted says ``slm``, as for the small model."""

    temperature: float = Field(
        0.0, ge=0, description="sampling temperature, 0: the likeliest token; random numbers come from seed and prompt"
    )
    batch_size: Positive = Field(16, description="prompts generated for together")
    engine: str = Field("transformers", description="what samples, a name of r2v_core.engines")
    engine_options: dict[str, Any] = Field(default_factory=dict, description="the engine's own keys, checked by it")


OPTIONS: dict[Provider, type[Section]] = {
    "env": ExpertOptions,
    "local": LocalOptions,
    "trained": TrainedOptions,
    "openai": OpenAIOptions,
    "anthropic": ApiOptions,
    "google": OpenAIOptions,
    "deepseek": OpenAIOptions,
    "openai_compatible": OpenAIOptions,
}
"""Provider → the model that its options are checked against."""


def check_options(provider: Provider, options: dict[str, Any], key: str = "teacher.options") -> Section:
    """Checked options of a provider, defaults filled in.

    Raises:
        R2VError: naming each key, its value and what is expected, unknown ones with the nearest known one.
    """
    model = OPTIONS[provider]
    try:
        return model.model_validate_json(json.dumps(options), strict=True)
    except ValidationError as error:
        if not model.model_fields:
            named = ", ".join(sorted(options))
            raise R2VError(f"{key}: the provider '{provider}' has no options; remove {named}") from None
        wrong = explain(error, schema_keys(model, key), key)
        raise R2VError("\n".join(f"{name} (provider {provider}): {what}" for name, what in wrong.items())) from None
