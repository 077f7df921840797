"""From the configuration to a server that serves the policy: started here, or found at an address."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

from r2v_core.config.schema import SLMConfig
from r2v_core.engines.vllm import WHERE, Options
from r2v_core.engines.vllm.client import Client, Refusal
from r2v_core.engines.vllm.engine import Served
from r2v_core.engines.vllm.server import server_environment, start
from r2v_core.engines.vllm.weights import adapter_name, lora_rank, merged
from r2v_core.errors import R2VError
from r2v_core.models.control_tokens import end_ids
from r2v_core.models.entropy import TOP
from r2v_core.models.hub import check_hardware, load_tokenizer, resolve_model, torch_dtype
from r2v_core.runs import processes
from r2v_core.runs.directories import project_root

BASE, POLICY = "base", "policy"
"""Names under which a server that is started here serves the model and the adapter."""


def opened(slm: SLMConfig, options: Options, cache: Path, adapter: Path | None, logs: Path) -> Served:
    """The engine, its server ready (:func:`r2v_core.engines.vllm.open_engine`)."""
    tokenizer, source = load_tokenizer(slm, cache), resolve_model(slm.model, cache)
    ends = end_ids(_generation_config(source), tokenizer)
    where, adapted = os.environ.get(WHERE, ""), adapter is not None and options.adapter == "served"
    if where.startswith(("http://", "https://")):
        client = Client(address_of(where), os.environ.get("VLLM_API_KEY", ""), options.timeout_s, lambda: None)
        served = Served(tokenizer, slm, options, client, _name_at(client, options, adapter), ends, adapted)
    else:
        python = environment_python(where)
        if options.served_as:
            raise R2VError(f"slm.engine_options.served_as: is for a server at an address; set {WHERE}, or remove it")
        command = _command(python, slm, options, source, cache, adapter)
        log = logs / f"vllm{processes.own_name()}.log"
        server = start(lambda port: [*command, f"--port={port}"], server_environment(os.environ), log, options.start_s)
        client = Client(server.address, server.key, options.timeout_s, server.check)
        served = Served(tokenizer, slm, options, client, POLICY if adapted else BASE, ends, adapted, server)
    try:
        served.check()
    except BaseException:
        if served.server:
            served.server.stop()
        raise
    return served


def address_of(where: str) -> str:
    """A server's address without the ``/v1`` that some write."""
    return where.rstrip("/").removesuffix("/v1")


def environment_python(where: str) -> Path:
    """The Python of the environment that vLLM is installed in.

    Raises:
        R2VError: if there is none.
    """
    folder = Path(where).expanduser() if where else project_root() / ".venv-vllm"
    python = folder / "bin" / "python"
    if not python.exists():
        made = "make it with: make vllm" if not where else "name an environment with vLLM, or the address of a server"
        raise R2VError(f"slm.engine: vllm needs an environment of its own, and there is no {python} ({WHERE}); {made}")
    return python


def _command(
    python: Path, slm: SLMConfig, options: Options, source: str, cache: Path, adapter: Path | None
) -> list[str]:
    """The command line of a server, all but its port."""
    check_hardware(slm)
    lora: Sequence[str] = ()
    if adapter and options.adapter == "merged":
        source = str(merged(slm, cache, adapter))
    elif adapter:
        room = lora_rank(adapter)
        lora = ("--enable-lora", f"--max-lora-rank={room}", "--lora-modules", f"{POLICY}={adapter.resolve()}")
    on_gpu = torch.cuda.is_available()
    # a seed of a request's own ends vLLM on a processor where a prompt is read in pieces
    device = (
        (f"--gpu-memory-utilization={options.gpu_memory}",)
        if on_gpu
        else ("--enforce-eager", "--no-enable-chunked-prefill")
    )
    return [
        *(str(python), "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"),
        *(f"--model={source}", f"--served-model-name={BASE}", "--host=127.0.0.1", "--disable-uvicorn-access-log"),
        *(f"--dtype={str(torch_dtype(slm.dtype)).removeprefix('torch.')}", "--max-model-len=auto"),
        *(["--quantization=bitsandbytes"] if slm.quantization == "4bit" else []),
        # a model's own generation config would change what is sampled, and what is told of it
        *("--generation-config=vllm", "--logprobs-mode=raw_logprobs", f"--max-logprobs={TOP}"),
        *("--enable-prefix-caching", *device, *lora, *options.arguments),
    ]


def _name_at(client: Client, options: Options, adapter: Path | None) -> str:
    """The name under which a server at an address serves the policy, which is loaded there if need be."""
    models = client.ask("/v1/models").get("data")
    if not isinstance(models, list):
        raise R2VError(
            f"{client.address}: not an OpenAI-compatible server (no list of models at /v1/models); correct the address"
        )
    known = {str(model.get("id")): model.get("parent") for model in models if isinstance(model, dict)}
    if options.served_as is not None:
        if options.served_as not in known:
            raise R2VError(
                f"slm.engine_options.served_as: {client.address} does not serve '{options.served_as}'; choose one "
                f"of: {', '.join(known) or 'nothing is served'}"
            )
        return options.served_as
    if adapter is None:
        base = [name for name, parent in known.items() if parent is None]
        if len(base) != 1:
            raise R2VError(
                f"slm.engine_options.served_as: name one of the models at {client.address} "
                f"(it has {', '.join(known) or 'none'})"
            )
        return base[0]
    if options.adapter == "merged":
        raise R2VError(
            f"slm.engine_options.adapter: at an address ({WHERE}) merged weights have to be served already; name them "
            "in slm.engine_options.served_as"
        )
    name = adapter_name(adapter)
    if name not in known:
        _load(client, name, adapter)
    return name


def _load(client: Client, name: str, adapter: Path) -> None:
    room = lora_rank(adapter)
    try:
        client.text("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.resolve())})
    except Refusal as refusal:
        raise R2VError(
            f"{refusal}; the adapter {adapter} was not loaded: start the server with "
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, --enable-lora and --max-lora-rank={room} where "
            "it sees this folder, or name in "
            "slm.engine_options.served_as what it serves already"
        ) from None


def _generation_config(source: str) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:
        return None  # a model need not have one
