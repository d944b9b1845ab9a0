"""The build: the pin is honoured, mistakes are one clear line, and a wheel holds what it should."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pexpect
import pytest

import engine
from ggml import build, cpu, fetch
from server.models.bundled import bundled_model
from support.quick import every

ROOT = Path(__file__).resolve().parents[1]
LIB = Path(engine.__file__).parent / "lib"
pinned = pytest.mark.usefixtures("_pinned_source")


@pytest.fixture
def _pinned_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the pinned source, also while somebody tries out another one."""
    monkeypatch.delenv("GGML_SOURCE_DIR", raising=False)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("GGSERVE_", "GGML_"))}
    # A cache of the user's choice stays in force, else this would download and compile once more.
    env |= {key: os.environ[key] for key in ("GGSERVE_CACHE",) if key in os.environ}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


def source_files() -> list[Path]:
    places = [ROOT / name for name in ("engine", "server", "ggml", "tests", "bench")]
    files = [path for place in places for path in place.rglob("*") if path.suffix in (".py", ".pyx", ".pxd")]
    return [*files, ROOT / "setup.py", ROOT / "pyproject.toml"]


def test_c_functions_are_called_only_from_cython() -> None:
    word = re.compile("ctypes|" + "cffi")
    files = source_files()
    assert len(files) > 50
    assert [str(p) for p in files if p != Path(__file__) and word.search(p.read_text())] == []


@pinned
def test_ggml_source_is_the_pinned_one_unpatched() -> None:
    package = fetch.pinned_package()
    archive = fetch.cache_dir() / "source" / fetch.PIN["file"]
    fetch.verify(archive, fetch.PIN["sha256"])
    expected, prefix = {}, fetch.PIN["file"].removesuffix(".tar.gz") + f"/{fetch.LLAMA}/ggml/"
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(prefix):
                content = tar.extractfile(member)
                assert content is not None
                expected[member.name.removeprefix(prefix)] = hashlib.sha256(content.read()).hexdigest()
    root = package / fetch.LLAMA / "ggml"
    actual = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
    assert "src/ggml.c" in actual
    assert actual == expected


@pinned
def test_the_pin_names_the_version_of_ggml_that_the_source_has() -> None:
    text = (fetch.ggml_dir() / "CMakeLists.txt").read_text()
    parts = [re.search(rf"set\(GGML_VERSION_{part} (\d+)\)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    assert ".".join(match.group(1) for match in parts if match) == fetch.PIN["ggml"]


def test_installed_libraries_record_their_source() -> None:
    facts = json.loads((LIB / "build.json").read_text())
    assert {key: facts[key] for key in fetch.PIN} == fetch.PIN
    names = {path.name.partition(".")[0] for path in LIB.iterdir()}
    assert {"libggml", "libggml-base"} <= names
    assert any(name.startswith("libggml-cpu") for name in names)
    assert not any(path.is_symlink() for path in LIB.iterdir())


def test_a_wrong_hash_is_refused_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "source" / fetch.PIN["file"]
    bad.parent.mkdir()
    bad.write_bytes(b"something else")
    done = run("ggml/fetch.py", "--path", GGSERVE_CACHE=str(tmp_path))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert done.stdout == ""
    assert line.startswith(f"error: {bad} has sha256 {hashlib.sha256(b'something else').hexdigest()}")
    assert fetch.PIN["sha256"] in line
    assert [path.name for path in bad.parent.iterdir()] == [bad.name]


def test_truncated_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes((fetch.cache_dir() / "source" / fetch.PIN["file"]).read_bytes()[:1_000_000])
    with pytest.raises(EOFError):
        fetch.unpack(archive, tmp_path / "out" / "package")
    assert list((tmp_path / "out").iterdir()) == []


def test_members_outside_the_package_are_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("ggml/in.c", "ggml/../../../../out.c", "src/other.c"):
            tar.add(tmp_path / "x", arcname=f"p/{fetch.LLAMA}/{name}")
    out = tmp_path / "out"
    fetch.unpack(archive, out / "package")
    files = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert files == ["package/vendor/llama.cpp/ggml/in.c"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    every(
        4,
        [
            ({"GGSERVE_BACKENDS": "cpu,cudda"}, "error: GGSERVE_BACKENDS: unknown backend 'cudda'; expected"),
            ({"GGSERVE_NATIVE": "maybe"}, "error: GGSERVE_NATIVE=maybe: expected 0 or 1"),
            (
                {"GGML_SOURCE_DIR": "/nowhere"},
                "error: GGML_SOURCE_DIR=/nowhere does not contain ggml's source",
            ),
            ({"CXX": "no-such-compiler"}, "error: no C++ compiler: cannot run 'no-such-compiler'"),
        ],
    ),
)
def test_invalid_setting_stops_the_build_with_one_line(environment: dict[str, str], expected: str) -> None:
    done = run("setup.py", "build_ext", "--inplace", **environment)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(expected)


def test_cpu_comes_first_and_names_are_not_repeated() -> None:
    assert build.backends(" vulkan, CUDA,cpu,cuda") == ["cpu", "vulkan", "cuda"]
    assert build.backends("cpu") == ["cpu"]
    assert build.backends("") == (["cpu", "metal"] if sys.platform == "darwin" else ["cpu"])


def test_every_backend_has_a_rule() -> None:
    text = (ROOT / "ggml" / "backends.cmake").read_text()
    rules = set(re.findall(r"GGSERVE_OPTION_(\w+) +GG", text))
    assert rules == set(build.BACKENDS)


def test_cpu_features_are_those_that_every_processor_has() -> None:
    one = "processor : 0\nflags\t\t: sse4_2 avx avx2 bmi2 fma f16c avx512_vnni\nprocessor : 1\n"
    both = one + "flags\t\t: sse4_2 avx avx2 fma f16c avx512_vnni\n"
    assert cpu.x86_features(cpu.flags(one)) == ["SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C"]
    assert cpu.x86_features(cpu.flags(both)) == ["SSE42", "AVX", "AVX2", "FMA", "F16C"]
    wide = "avx512f avx512cd avx512vl avx512dq avx512bw avx512_vnni"
    assert cpu.x86_features(set(wide.split())) == ["AVX512", "AVX512_VNNI"]
    assert cpu.flags("") == set()


def test_arm_arch_names_the_features_of_every_core() -> None:
    assert cpu.arm_arch({"fp", "asimd"}) == "armv8-a"
    assert cpu.arm_arch({"asimddp", "asimdhp", "i8mm"}) == "armv8.2-a+dotprod+fp16+i8mm"


@pytest.mark.parametrize(
    ("system", "machine", "options"),
    [
        ("darwin", "arm64", {"GGML_CPU_ARM_ARCH": "armv8.2-a+dotprod+fp16"}),
        ("darwin", "x86_64", {}),  # ggml's defaults have AVX2
        ("win32", "AMD64", {}),
    ],
)
def test_cmake_options_follow_the_system_and_machine(
    system: str, machine: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert cpu.cmake_options() == options


def test_cache_key_covers_everything_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return build.plan().target.name

    first = key()
    assert key() == first
    for name, value in {"GGSERVE_NATIVE": "0", "GGSERVE_BACKENDS": "rpc", "CXXFLAGS": "-O1"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert key() != first, name
    assert key() == first


@pinned
def test_no_cpu_module_uses_amx(tmp_path: Path) -> None:
    """ggml would select one wherever a hypervisor announces AMX, whether it keeps the tiles or not."""
    lists = (fetch.ggml_dir() / "src" / "CMakeLists.txt").read_text()
    variants = re.findall(r"ggml_add_cpu_backend_variant\((\w+) ([^)]*)\)", lists)
    lib = tmp_path / "lib"
    lib.mkdir()
    for name, _ in variants:
        (lib / f"libggml-cpu-{name}.so").touch()
    (lib / "build.ninja").touch()
    build.collect(lib, tmp_path / "out", {})
    collected = {path.stem.removeprefix("libggml-cpu-") for path in (tmp_path / "out").glob("*.so")}
    features = {name: set(text.split()) for name, text in variants}
    with_amx = {name for name, actual in features.items() if any(f.startswith("AMX") for f in actual)}
    assert with_amx
    assert collected == features.keys() - with_amx
    for name in with_amx:
        rest = {feature for feature in features[name] if not feature.startswith("AMX")}
        assert any(rest <= features[other] for other in collected), name


def test_a_missing_compiler_is_reported_before_anything_is_installed() -> None:
    code = "from ggml import pep517; print(pep517.get_requires_for_build_wheel())"
    done = run("-c", code, CXX="no-such-compiler")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no C++ compiler: cannot run 'no-such-compiler'; install one (")
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert "cython" in done.stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == []
    assert str(project["dependency-groups"]["build"]) == done.stdout.strip()
    assert run("ggml/build.py", "--check", CXX="no-such-compiler").stderr == line + "\n"
    assert run("ggml/build.py", "--check").returncode == 0


def test_build_tells_the_terminal_that_it_takes_minutes() -> None:
    code = "from ggml import pep517; pep517.notify()"
    words = [sys.executable, "-c", f"import sys; sys.stderr = open('{os.devnull}', 'w'); {code}"]
    child = pexpect.spawn(words[0], words[1:], cwd=str(ROOT), encoding="utf-8", timeout=60)
    child.expect("takes minutes")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.e2e
def test_source_distribution_has_every_file_the_build_reads(tmp_path: Path) -> None:
    folders = [ROOT / name for name in ("engine", "ggml", "server")]
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        and path.parent != LIB
        and path.suffix in {".py", ".pyx", ".pxd", ".pyi", ".h", ".cpp", ".cl", ".json", ".cmake"}
    }
    sources |= {
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "models/stories.gguf",
        "configs/models.yml",
        "LICENSE",
    }
    sources |= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "server/page").rglob("*") if path.is_file()
    }
    shutil.copytree(ROOT / "ggml", tmp_path / "tree" / "ggml")
    for path in sources:
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tmp_path / "tree" / path)
    shutil.copy2(ROOT / "README.md", tmp_path / "tree")
    code = "from ggml import pep517; import sys; pep517.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path / "tree", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert sources - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.parametrize(
    ("arguments", "downloads"),
    every(
        3,
        [
            ("", True),
            ("--port 9000", True),
            ("--model x.gguf", False),
            ("-m qwen3-8b", False),
            ("-hf me/x", False),
            ("x.gguf --port 9000", False),
            ("--port 9000 x.gguf", False),
            ("qwen3-8b", False),
            ("--config x.yml", False),
        ],
    ),
)
def test_make_serve_downloads_the_default_model_unless_another_is_named(
    arguments: str, downloads: bool, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GGSERVE_", "MAKE"))}
    command = ["make", "--dry-run", "serve", f"VENV={tmp_path}/venv", f"ARGS={arguments}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("-m server.models" in done.stdout) == downloads


def test_the_bundled_model_is_found() -> None:
    assert bundled_model().read_bytes()[:4] == b"GGUF"


@pytest.mark.e2e
def test_a_wheel_has_the_libraries_and_works_anywhere(tmp_path: Path) -> None:
    pip = ("-m", "pip", "--disable-pip-version-check")
    backends = json.loads((LIB / "build.json").read_text())["GGSERVE_BACKENDS"].replace(";", ",")
    arguments = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), ".")
    done = run(*pip, *arguments, GGSERVE_BACKENDS=backends)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"server/models/stories.gguf", "server/models/models.yml"} <= set(names)
    assert "engine/libggml/ggml.pxd" in names
    page = ROOT / "server" / "page"
    files = {f"server/page/{path.relative_to(page).as_posix()}" for path in page.rglob("*") if path.is_file()}
    assert files <= set(names)
    assert {f"engine/lib/{path.name}" for path in LIB.iterdir()} <= set(names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"engine", "server"}
    assert [name for name in names if name.endswith((".h", ".hpp", ".cpp", ".c"))] == []

    place = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(place)
    code = "import engine, server.models.bundled as b; print(engine, b.bundled_model(), engine.devices()[0])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(place / "engine" / "__init__.py") in done.stdout
    assert str(place / "server" / "models" / "stories.gguf") in done.stdout
    assert "CPU" in done.stdout
