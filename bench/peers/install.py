"""The pinned peers, each in a git-ignored environment of its own, and the models that the rows need."""
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LLAMA_CPP = "llama-cpp-python==0.3.36"
OPENVINO = ["openvino-genai==2026.4.1.0", "openvino==2026.4.1", "nncf==3.4.0"]
TOOLS = ["gguf==0.19.0", "numpy"]  # of tools/make_random_model.py
AVX2 = ["SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"]
AVX512 = AVX2 + ["AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"]
BUILDS = {
    "native": ["-DGGML_NATIVE=ON"],
    "avx512": ["-DGGML_NATIVE=OFF", *(f"-DGGML_{f}=ON" for f in AVX512)],
    "avx2": ["-DGGML_NATIVE=OFF", *(f"-DGGML_{f}=ON" for f in AVX2)],
}


def environment(name):
    return HERE / (".venv" if name == "native" else f".venv-{name}")


def python(name):
    return environment(name) / "bin/python"


def newest_clang():
    """GCC 12 optimizes llama.cpp's AMX configuration away, and the program crashes at ldtilecfg."""
    for version in [*(f"-{n}" for n in range(25, 13, -1)), ""]:
        if shutil.which("clang++" + version): return "clang" + version, "clang++" + version
    sys.exit("install a clang first: llama.cpp compiled with GCC 12 crashes on AMX")


def pip(name, *packages, **env):
    if not environment(name).exists(): subprocess.run([sys.executable, "-m", "venv", environment(name)], check=True)
    command = [python(name), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(command, check=True, env={**os.environ, **env})


def has(name, module):
    return python(name).exists() and subprocess.run([python(name), "-c", f"import {module}"], stderr=subprocess.DEVNULL).returncode == 0


def install(build, openvino=False):
    """llama.cpp of a build; for "native" also what makes the models, and OpenVINO. What is there stays."""
    if not has(build, "llama_cpp"):
        print(f"compiling {LLAMA_CPP} ({build})", file=sys.stderr)
        c, cxx = newest_clang()
        flags = [f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}", "-DLLAVA_BUILD=OFF", *BUILDS[build]]
        pip(build, "--no-binary", "llama-cpp-python", LLAMA_CPP, CMAKE_ARGS=" ".join(flags))
    if build == "native" and not has(build, "gguf"): pip(build, *TOOLS)
    if openvino and not (has(build, "openvino_genai") and has(build, "nncf")): pip(build, *OPENVINO)


def model(name, folder):
    """The path of a model of the rows; made or fetched if it is not there.
    1b-FORMAT.gguf, 1b-openvino-int4 (a folder), or smollm2."""
    if name == "smollm2":
        subprocess.run([ROOT / "tools/fetch-model.sh"], check=True)
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        return pathlib.Path(cache) / "kvasir/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    path = folder / name
    if path.exists(): return path
    folder.mkdir(parents=True, exist_ok=True)
    print(f"making {path}", file=sys.stderr)
    part = folder / f".{name}.part"
    if name.endswith(".gguf"):
        make_gguf(part, path.stem.removeprefix("1b-").upper())
    else:
        full = folder / ".1b-f16.gguf"
        make_gguf(full, "F16")
        subprocess.run([python("native"), HERE / "make_openvino.py", full, part], check=True, stdout=sys.stderr)
        full.unlink()
    part.rename(path)
    return path


def make_gguf(path, format):
    subprocess.run([python("native"), ROOT / "tools/make_random_model.py", path, "--preset", "llama-3.2-1b", "--format", format], check=True)
