"""People who come from the R2V scripts: what they write is refused with what stands for it here, and nothing else."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from r2v_core.config import Config
from r2v_core.config.explain import schema_keys
from r2v_core.config.former import TITLES, former, former_key, markdown
from r2v_core.errors import R2VError
from r2v_core.stages import cli
from r2v_core.stages.experiments import load_config

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/coming-from-r2v-scripts.md"
EACH = ("bc", "verifier", "dpo")

KEYS: dict[str, tuple[str, ...]] = {
    "training.lr": tuple(f"training.{part}.learning_rate" for part in EACH),
    "training.num_epochs": tuple(f"training.{part}.max_steps" for part in EACH),
    "training.batch_size": tuple(f"training.{part}.batch_size" for part in EACH),
    "training.gradient_accumulation_steps": tuple(f"training.{part}.grad_accumulation" for part in EACH),
    "policy.lora_r": ("training.lora.r",),
    "policy.lora.r": ("training.lora.r",),
    "policy.load_in_4bit": ("slm.quantization",),
    "policy.quantization.load_in_4bit": ("slm.quantization",),
    "policy.model_name": ("slm.model",),
    "policy.max_seq_len": ("slm.max_prompt_tokens",),
    "perturbations.tool_flakiness.failure_prob": ("perturbations.tool_flakiness.error",),
    "perturbations.tool_flakiness.result_shuffle_prob": ("perturbations.tool_flakiness.result_shuffle",),
    "perturbations.tool_flakiness.partial_response_prob": ("perturbations.tool_flakiness.partial",),
    "perturbations.prompt_injection.encoded_injection_prob": ("perturbations.prompt_injection.encoded",),
    "perturbations.prompt_injection.exfiltration_attempt_prob": ("perturbations.prompt_injection.exfiltration",),
    "perturbations.distractors.plausible_wrong_prob": ("perturbations.distractors.plausible_wrong",),
    "perturbations.prompt_injection.goal_hijack_prob": ("perturbations.prompt_injection.fake_goal",),
    "training.preference.beta": ("training.dpo.beta",),
    "training.preference.epochs": ("training.dpo.max_steps",),
    "training.preference.num_candidates": ("candidates.k",),
    "training.preference.learning_rate": ("training.dpo.learning_rate",),
    "training.preference.something": ("training.dpo",),
    "training.consistency.lambda_cons": ("training.dpo.consistency_weight",),
    "training.consistency.enabled": ("training.dpo.consistency_weight",),
    "training.lambda_cons": ("training.dpo.consistency_weight",),
    "training.bc.epochs": ("training.bc.max_steps",),
    "training.bc.gradient_accumulation_steps": ("training.bc.grad_accumulation",),
    "training.router.cost_llm": ("agent.cost_teacher",),
    "training.router.cost_slm": ("agent.cost_slm",),
    "training.router.lagrangian_lr": ("training.router.dual_learning_rate",),
    "router.num_epochs": ("training.router.epochs",),
    "router.hidden_dims": ("training.router.hidden",),
    "verifier.mode": ("candidates.scored_by",),
    "verifier.multitask.final_weight": ("training.verifier.outcome_weight",),
    "teacher.temperature": ("teacher.options.temperature",),
    "teacher.max_tokens": ("teacher.options.max_tokens",),
    "inference.num_candidates": ("candidates.k",),
    "inference.temperature": ("candidates.temperature",),
    "inference.max_llm_calls": ("agent.max_teacher_calls",),
    "inference.step_limit": ("benchmark.max_steps",),
    "evaluation.num_perturbation_seeds": ("perturbations.seeds.test",),
    "evaluation.num_bootstrap_samples": ("evaluation.bootstrap",),
    "data.max_episode_steps": ("benchmark.max_steps",),
    "data.num_teacher_trajectories": ("benchmark.splits.train", "collection.episodes_per_task"),
    "compute.precision": ("slm.dtype",),
    "compute.flash_attention": ("slm.attention",),
    "logging.use_wandb": ("training.wandb",),
    "logging.wandb_mode": ("training.wandb",),
    "logging.wandb_project": ("training.wandb_project",),
    "logging.wandb_entity": ("training.wandb_entity",),
    "project.output_dir": ("paths.outputs", "paths.results"),
    "experiment.name": ("name",),
}
NOTES = {
    "project.seed": "the last part of the partition",
    "teacher.provider": "configs/teachers.yaml",
    "compute.num_gpus": "accelerate launch",
    "compute.deepspeed_stage": "accelerate launch",
    "router.batch_size": "all steps at once",
    "training.verifier.use_focal_loss": "cross-entropy",
}


def refusal(*overrides: str) -> str:
    with pytest.raises(R2VError) as caught:
        load_config("configs/mrp.yaml", overrides, project=ROOT)
    return str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_an_override_of_theirs_is_refused_with_the_key_that_does_it_here(key: str) -> None:
    message = refusal(f"{key}=1")
    assert message.startswith(f"{key} (override): a key of the R2V scripts; write ")
    assert "\n" not in message
    written = message.split("; write ", 1)[1].split(": ")[0]
    assert tuple(re.findall(r"'([\w.]+)'", written)) == KEYS[key]


@pytest.mark.parametrize("key", NOTES)
def test_where_there_is_no_such_thing_the_refusal_says_how_it_is_instead(key: str) -> None:
    message = refusal(f"{key}=1")
    assert message.startswith(f"{key} (override): a key of the R2V scripts; ")
    assert NOTES[key] in message


def test_every_line_of_the_readmes_override_example_is_answered() -> None:
    keys = ["training.num_epochs", "training.lr", "training.batch_size", "policy.lora_r", "logging.wandb_mode"]
    head, *lines = refusal(*(f"{key}=1" for key in keys)).splitlines()
    assert head == "configs/mrp.yaml: 5 problems"
    assert sorted(line.split()[0] for line in lines) == sorted(keys)


def test_a_config_file_of_theirs_is_answered_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(
        "benchmark: webarena\npolicy:\n  lora:\n    r: 32\n  quantization:\n    load_in_4bit: true\n"
        "perturbations:\n  distractors:\n    enabled: true\n    red_herring_prob: 0.1\nproject: {}\n"
    )
    with pytest.raises(R2VError) as caught:
        load_config("old.yaml", project=tmp_path)
    head, *lines = str(caught.value).splitlines()
    assert head == "old.yaml: 5 problems"
    assert {line.split(":")[0].strip() + ":" + line.split(":")[1].split(")")[0] for line in lines} == {
        "benchmark (old.yaml:1",
        "policy.lora.r (old.yaml:4",
        "policy.quantization.load_in_4bit (old.yaml:6",
        "perturbations.distractors.red_herring_prob (old.yaml:10",
        "project (old.yaml:11",
    }
    assert "Then write 'benchmark.name'" in lines[[line.split()[0] for line in lines].index("benchmark")]


def test_the_table_names_keys_that_exist_and_none_that_still_does() -> None:
    known = schema_keys(Config)
    open_ended = ("teacher.options", "judge.options", "benchmark.options")
    for key, entry in former("keys").items():
        assert entry.here or entry.note, key
        for name in entry.here:
            assert name in known or name.rpartition(".")[0] in open_ended, f"{key}: {name}"
        assert key == "benchmark" or key.removesuffix(".*") not in known, f"{key} is a key of today"
    for option, entry in former("options").items():
        for name in re.findall(r"([a-z_]+(?:\.[a-z_]+)+)=", " ".join(entry.here)):
            assert name in known, f"{option}: {name}"


def test_a_key_without_a_line_of_its_own_takes_its_sections() -> None:
    exact = former_key("policy.lora.r")
    assert exact is not None and exact.here == ("training.lora.r",)
    assert former_key("policy.unheard_of") == former("keys")["policy.*"] == former_key("policy")
    assert former_key("training.bc.learning_rte") is None


OPTIONS = {
    "--num-episodes": "--overrides benchmark.splits.train=N",
    "--seeds": "--partition '<benchmark>:<teacher>|SEED'",
    "--run-tags": "--tag",
    "--output": "--overrides paths.data=DIR paths.outputs=DIR paths.results=DIR",
    "--K": "--overrides candidates.k=K",
    "--methods": "--overrides 'evaluation.methods=[r2v, slm_only]'",
    "--trajectories": "--input trajectories=FILE.jsonl",
    "--policy-path": "--input policy=RUN_DIR",
    "--router-path": "--input router=RUN_DIR",
    "--features": "--input features=RUN_DIR",
    "--resume-from": "--extend RUN_DIR",
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("form", ["{} a b", "{}=a"])
def test_an_option_of_theirs_is_refused_with_ours(option: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("train_bc", form.format(option).split()) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: {option}: an option of the R2V scripts; write {OPTIONS[option]}")
    assert "\n" not in said


def test_what_ours_say_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main("train_bc", ["--help"])
    ours = capsys.readouterr().out
    for option, text in OPTIONS.items():
        assert f"  {text.split()[0]} " in ours, option


def test_resume_takes_no_path_and_other_mistakes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--resume", "outputs/x"], "error: --resume outputs/x: --resume takes no path; write --extend RUN_DIR"),
        (["--confg", "x"], "error: unknown option --confg. Did you mean '--config'?"),
        (["bar"], "error: 'bar' belongs to no option; see --help"),
    ):
        assert cli.main("train_bc", arguments) == 2
        assert capsys.readouterr().err.startswith(said)


def test_stages_and_python_names_of_the_table_exist() -> None:
    modules = [name.split()[0] for entry in former("scripts").values() for name in entry.here if "r2v_core." in name]
    assert len(modules) == 11
    for name in modules:
        importlib.import_module(name)
    for entry in former("python").values():
        for name in entry.here:
            module, _, attribute = name.rpartition(".")
            found = importlib.import_module(module)
            assert attribute in getattr(found, "__all__", ()) or hasattr(found, attribute), name


@pytest.mark.parametrize("part", TITLES)
def test_the_page_shows_the_table(part: str) -> None:
    assert markdown(part) in PAGE.read_text(encoding="utf-8"), "python -m r2v_core.config.former prints the tables"
