"""The engine from a shell."""

import json
import subprocess
import sys

import pytest
import torch

from engine import __version__
from engine.__main__ import main
from engine.config.registry import TECHNIQUES
from engine.recipe.model_names import BUNDLED_MODELS
from tests.cases import for_each
from tests.recipes import recipe_for
from tests.tiny import tiny

FOUR = {"technique": "round-to-nearest"}
SCORES = {
    "size_bytes",
    "bits_per_weight",
    "bits_per_parameter",
    "compression",
    "perplexity",
    "loss",
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "agreement",
}
LAYER = {
    "name",
    "kind",
    "shape",
    "size_bytes",
    "bits_per_weight",
    "relative_error",
    "technique",
    "parameters",
}


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    """A run takes all cores, and is kept in the list of runs."""
    monkeypatch.setenv("COMPRESSION_EXPLORER_HOME", str(tmp_path / "home"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {
        name: tiny(name, tmp_path_factory.mktemp(name), torch.bfloat16)
        for name in ("llama", "resnet")
    }


@pytest.fixture
def write_recipe(models, tmp_path):
    """The path of a recipe as YAML."""

    def write(architecture="llama", *steps, **fields):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            recipe_for(
                architecture, models[architecture], tmp_path / "data", *(steps or [FOUR]), **fields
            ).to_yaml()
        )
        return str(path)

    return write


def json_output(capsys, *arguments) -> object:
    """The one JSON document on standard output."""
    assert main(list(arguments)) == 0
    return json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )


def complaint(capsys, *arguments) -> str:
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert (
        said.out == ""
        and said.err.strip().count("\n") == 0
        and said.err.rstrip().endswith(".")
        and "Traceback" not in said.err
    )
    return said.err


# --- lists ----------------------------------------------------------------------------------------


def test_models_techniques_runs_and_doctor_speak_json(capsys):
    assert {row["model"] for row in json_output(capsys, "models", "--json")} == {
        model.reference for model in BUNDLED_MODELS.values()
    }
    techniques = {row["id"]: row for row in json_output(capsys, "techniques", "--json")}
    assert (
        techniques.keys() == TECHNIQUES.keys()
        and techniques["round-to-nearest"]["schema"]["properties"]["bits"]["maximum"] == 8
    )
    assert json_output(capsys, "runs", "--json") == []
    facts = json_output(capsys, "doctor", "--json")
    assert (
        facts["versions"]["torch"] == torch.__version__
        and facts["home_writable"] is True
        and facts["cores"] >= 1
    )


def test_the_doctor_says_what_keeps_a_named_cluster_from_answering(capsys, monkeypatch):
    monkeypatch.setattr("engine.session.external_cluster.ANSWER_SECONDS", 1)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    facts = json_output(capsys, "doctor", "--json")
    assert facts["cluster"] == "tcp://127.0.0.1:9" and facts["cluster_status"].startswith(
        "No cluster answers at"
    )


def test_every_command_prints_readable_text(capsys):
    for command in ("models", "techniques", "runs", "doctor"):
        assert main([command]) == 0
        assert capsys.readouterr().out.strip()


def test_a_package_that_is_not_there_does_not_stop_the_doctor(capsys, monkeypatch):
    monkeypatch.setattr("engine.__main__.PACKAGES", ("torch", "no-such-package"))
    assert json_output(capsys, "doctor", "--json")["versions"]["no-such-package"] is None


def test_commands_that_compute_nothing_do_not_import_torch(tmp_path):
    (tmp_path / "recipe.yaml").write_text("steps: [")
    script = (
        "import sys; from engine.__main__ import main; "
        "codes = [main([name]) for name in ('models', 'techniques', 'runs')]; "
        "codes.append(main(['run', sys.argv[1]])); "
        "sys.exit(codes != [0, 0, 0, 2] or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "recipe.yaml")]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120, check=True)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["models", "--nonsense"], ["run"]])
def test_a_wrong_command_line_is_explained_with_exit_code_2(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and "Usage:" in said.err and "Traceback" not in said.err


def test_help_and_version_are_printed(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out.strip() == __version__
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("models", "techniques", "runs", "doctor", "run", "app"))


def test_arguments_of_the_dashboard_go_to_streamlit(monkeypatch):
    commands = []
    monkeypatch.setattr(
        "engine.__main__.subprocess.call", lambda command, cwd: commands.append(command) or 0
    )
    assert main(["app", "--server.port", "8502", "--server.headless=true"]) == 0
    assert commands[0][-3:] == ["--server.port", "8502", "--server.headless=true"]


def test_a_reader_that_has_read_enough_is_no_error():
    shell = subprocess.Popen(
        [sys.executable, "-m", "engine", "techniques"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    shell.stdout.close()
    assert (shell.stderr.read(), shell.wait(120)) == (b"", 0)
    shell.stderr.close()


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_prints_one_json_object_and_its_progress_on_standard_error(write_recipe, tmp_path):
    command = [
        sys.executable,
        "-m",
        "engine",
        "run",
        write_recipe(),
        "--json",
        "--save",
        str(tmp_path / "saved"),
    ]
    shell = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    said = json.loads(shell.stdout)
    assert {
        "run",
        "model",
        "device",
        "protocol",
        "baseline",
        "result",
        "layers",
        "seconds",
        "peak_rss_bytes",
    } <= said.keys()
    assert (
        said["result"].keys() >= SCORES
        and said["baseline"].keys() >= SCORES
        and all(layer.keys() >= LAYER for layer in said["layers"])
    )
    assert said["result"]["size_bytes"] == sum(
        file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors")
    )
    assert "Measuring the original" in shell.stderr and "Compressing" in shell.stderr
    assert not [
        line
        for line in shell.stderr.splitlines()
        if "warn" in line.lower() or "failed" in line.lower()
    ]


def test_unmeasured_values_are_null(write_recipe, capsys):
    said = json_output(capsys, "run", write_recipe(), "--json")
    kept = next(layer for layer in said["layers"] if layer["name"] == "lm_head")
    assert (
        kept["relative_error"] is None and kept["output_error"] is None and kept["technique"] == ""
    )
    assert (
        said["result"]["accuracy"] is None
        and said["result"]["perplexity"] > 1
        and said["baseline"]["bits_per_weight"] == 16.0
    )
    picture = json_output(capsys, "run", write_recipe("resnet"), "--json")["result"]
    assert picture["perplexity"] is None and 0 <= picture["accuracy"] <= 1


def test_a_saved_model_gives_the_same_perplexity_exactly(write_recipe, capsys, tmp_path):
    first = json_output(capsys, "run", write_recipe(), "--json", "--save", str(tmp_path / "saved"))
    recipe = tmp_path / "again.yaml"
    task = recipe_for("llama", tmp_path, tmp_path / "data").task.model_dump()
    # JSON is YAML
    recipe.write_text(json.dumps({"model": str(tmp_path / "saved"), "task": task, "device": "cpu"}))
    again = json_output(capsys, "run", str(recipe), "--json")
    assert (
        again["result"]["perplexity"] == first["result"]["perplexity"]
        and again["result"]["size_bytes"] == first["result"]["size_bytes"]
    )
    assert {row["name"]: row["size_bytes"] for row in again["layers"]} == {
        row["name"]: row["size_bytes"] for row in first["layers"]
    }


def test_a_run_is_kept_in_the_list_of_runs(write_recipe, capsys):
    said = json_output(capsys, "run", write_recipe(), "--json")
    (kept,) = json_output(capsys, "runs", "--json")
    assert (
        kept["id"] == said["run"]
        and kept["status"] == "done"
        and kept["summary"]["result"] == said["result"]
    )


def test_a_run_prints_a_short_summary(write_recipe, capsys):
    assert main(["run", write_recipe()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) <= 8
        and any("perplexity" in line for line in lines)
        and "16.00 -> " in "".join(lines)
    )


# --- refusals -------------------------------------------------------------------------------------


@for_each(
    ("text", "words"),
    [
        ("steps: [", "not valid YAML"),
        ("- a\n- b", "A recipe is a mapping"),
        ("steps: [{technique: no-such}]", "is not a known technique; give"),
        (
            "steps: [{technique: round-to-nearest, bits: 1}]",
            "Step 1, Bits (bits): 1 is not allowed",
        ),
        ("steps: [{technique: round-to-nearest}, {technique: bitsandbytes}]", "cannot come after"),
        ("model: bundled:nothing", "There is no bundled model 'nothing'"),
        ("model: ./no/such/folder", "There is no model './no/such/folder'"),
    ],
)
def test_an_invalid_recipe_gives_one_sentence_and_exit_code_2(text, words, capsys, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    assert words in complaint(capsys, "run", str(tmp_path / "recipe.yaml"), "--json")


def test_a_recipe_that_is_not_there_is_one_sentence_and_exit_code_2(capsys, tmp_path):
    for path, words in {
        tmp_path / "nothing.yaml": "cannot be read",
        tmp_path: "is a folder",
        "/dev/zero": "is not a regular file",
    }.items():
        assert words in complaint(capsys, "run", str(path))


def test_a_place_that_cannot_be_saved_to_is_one_sentence_and_exit_code_2(
    write_recipe, capsys, tmp_path
):
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in complaint(
        capsys, "run", write_recipe(), "--save", str(tmp_path / "file" / "below")
    )
    assert "is not empty" in complaint(capsys, "run", write_recipe(), "--save", str(tmp_path))


def test_a_stopped_run_says_so_and_leaves_nothing(write_recipe, capsys, monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.pipeline.steps.run_step", interrupt)
    assert main(["run", write_recipe(), "--save", str(tmp_path / "saved")]) == 130
    assert "nothing was kept" in capsys.readouterr().err and not (tmp_path / "saved").exists()
