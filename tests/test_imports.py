"""The architecture's rules, checked on the imports and calls of every module."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Layers from the lowest up: which other packages of the project each one may import.
ALLOWED = {
    "system": set(),
    "configs": {"system"},
    "run_folder": {"configs", "system"},
    "efficientnet": {"system"},
    "input_pipeline": {"system"},
    "tasks": {"efficientnet", "input_pipeline", "system"},
    "training": {"tasks", "efficientnet", "input_pipeline", "run_folder", "configs", "system"},
}
ALLOWED["serving"] = {"training", *ALLOWED["training"]}
ALLOWED["proofs"] = ALLOWED["benchmarks"] = ALLOWED["main"] = {"serving", *ALLOWED["serving"]}
# Runs are read where the trainer is; the wheel leaves this module out.
ALLOWED_TO = {"efficientnet.weights.run": {"run_folder", "configs"}}
PACKAGES = tuple(name for name in ALLOWED if name != "main")

# Folders of training that get values, never an Experiment, and know only one another.
LEAVES = ("training.step", "training.optimizers", "training.devices")

LOOP = (
    *("loop", "run", "evaluator", "model_dir", "failures"),
    *("eval_loop", "evaluate", "report", "progress", "preemption", "lr_range"),
    *("profile", "benchmark"),
)  # of training

STRATEGIES = {
    "CentralStorageStrategy",
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "OneDeviceStrategy",
    "ParameterServerStrategy",
    "TPUClusterResolver",
    "TPUStrategy",
    "get_strategy",
}


@cache
def modules():
    """Every module of the project outside tests: {dotted name: syntax tree}."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    trees = {}
    for file in [*files, *ROOT.glob("*.py")]:
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(file.read_text())
    return trees


def imports(name):
    """Dotted names that a module imports, at its top or anywhere else."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module is not None
            # `from training.step import packed` names a module, `from configs.load import X` does not.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & set(modules())) or {node.module}
    return found


def house(name):
    """Modules of the project that a module imports."""
    return {target for target in imports(name) if target.split(".")[0] in ALLOWED}


def calls(name):
    """(enclosing top-level function or class or None, dotted name of what is used) in a module."""
    for statement in modules()[name].body:
        owner = getattr(statement, "name", None)
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute | ast.Name):
                yield owner, ast.unparse(node)


def named(package):
    return sorted(name for name in modules() if name.split(".")[0] == package)


def test_the_whole_house_is_read():
    for package in PACKAGES:
        assert named(package), package
    assert "training.step.packed" in imports("training.step.train_step")
    assert "input_pipeline.augment.levels" in imports("input_pipeline.augment.policies")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_down(package):
    for name in named(package):
        for target in house(name):
            other = target.split(".")[0]
            allowed = {package} | ALLOWED[package] | ALLOWED_TO.get(name, set())
            assert other in allowed, f"{name} imports {target}"


def test_no_module_of_the_house_imports_the_command_line():
    assert not [name for name in modules() if "main" in imports(name)]


def test_imports_never_go_in_a_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for target in house(name):
            # A package's own modules run its __init__ first without needing anything from it.
            if target in modules() and target != name:
                visit(target)
        done.add(path.pop())

    for name in modules():
        visit(name)


def reachable(name):
    """Modules of the project that are imported when a module is, itself included."""
    found, left = set(), [name]
    while left:
        module = left.pop()
        if module in modules() and module not in found:
            found.add(module)
            left += house(module)
    return found


def test_serving_needs_nothing_of_the_training_loop():
    assert {f"training.{module}" for module in LOOP} <= set(modules())
    for name in named("serving"):
        loop = {f"training.{module}" for module in LOOP} & reachable(name)
        assert not loop, f"{name} reaches {loop}"


def test_networks_need_keras_alone():
    for name in named("efficientnet"):
        roots = {target.split(".")[0] for target in imports(name)}
        if not name.startswith("efficientnet.weights"):
            assert not roots & {"tensorflow", "yaml", "pydantic", "h5py", "os", "pathlib"}, name


def test_images_need_tensorflow_alone():
    for name in named("input_pipeline"):
        roots = {target.split(".")[0] for target in imports(name)}
        assert not roots & {"keras", "pydantic", "yaml"}, name


def test_experiments_need_neither_networks_nor_images():
    for name in named("configs"):
        roots = {target.split(".")[0] for target in imports(name)}
        assert not roots & {"keras", "efficientnet", "input_pipeline", "training"}, name


@pytest.mark.parametrize("folder", LEAVES)
def test_the_step_the_optimizers_and_the_devices_know_no_experiment(folder):
    inside = [name for name in modules() if f"{name}.".startswith(f"{folder}.")]
    assert len(inside) > 1
    for name in inside:
        for target in house(name):
            assert target.startswith(("system", "efficientnet", "tasks", *LEAVES)), (
                f"{name} imports {target}"
            )


def test_only_devices_name_strategies():
    for name in modules():
        if name.startswith("training.devices"):
            continue
        for _, used in calls(name):
            assert used.split(".")[-1] not in STRATEGIES, f"{name} uses {used}"


def is_command(name):
    return any(ast.unparse(s).startswith("if __name__ == '__main__'") for s in modules()[name].body)


def test_only_commands_read_the_command_line():
    for name in modules():
        if name == "system.command":  # the base of every command
            continue
        for _, used in calls(name):
            reads = used in ("sys.argv", "flags.FLAGS", "FLAGS") or used.endswith(".parse_args")
            assert not reads or is_command(name), f"{name} uses {used}"
        assert "argparse" not in imports(name), name
        parsers = {"system.command", "absl.flags"} & imports(name)
        assert not parsers or is_command(name), f"{name} imports {parsers}"


def derives_from_safe_loader(tree, call):
    """Whether `yaml.load(text, Loader)` names a class of the same file that extends SafeLoader."""
    safe = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and "yaml.SafeLoader" in [ast.unparse(base) for base in node.bases]
    }
    return len(call.args) == 2 and ast.unparse(call.args[1]) in safe


def forbidden(tree):
    """Yield each use of what can run or load other people's code, as the source spells it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in UNPICKLERS:
                yield node.module
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "os.system", "os.popen", *YAML_LOADERS):
                yield called
            if called.endswith((".extractall", ".unpack_archive")):
                yield called  # archives are read in place: nothing in them names a path to write to
            if called == "yaml.load" and not derives_from_safe_loader(tree, node):
                yield called
            for keyword in node.keywords:
                argument = f"{keyword.arg}={ast.unparse(keyword.value)}"
                if argument in ("shell=True", "allow_pickle=True"):
                    yield argument


UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
YAML_LOADERS = tuple(f"yaml.{x}" for x in ("load_all", "unsafe_load", "full_load"))


def test_nothing_runs_code_from_files_or_shells():
    for name, tree in modules().items():
        assert not list(forbidden(tree)), name


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=Loader)",
        "subprocess.run('ls', shell=True)",
        "os.system('ls')",
        "tarfile.open(name).extractall(folder)",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_the_search_finds_what_is_forbidden(source):
    assert list(forbidden(ast.parse(source)))
