"""What handreid runs on: versions, devices, memory, disks, caches, and known trouble."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torchvision

from handreid.files import cache_folder, free_bytes

PACKAGES = ("handreid", "torch", "torchvision", "open_clip_torch", "lightning", "numpy", "pillow", "polars", "pydantic")
EXTRAS = ("mlflow", "tensorboard", "wandb", "ray", "optuna", "playwright")
COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}
LITTLE_DISK = 5e9  # bytes; a checkpoint of a ViT-B/16 with Adam's state takes 1 GB
_BF16_BEFORE = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def survey(folder: Path) -> dict[str, Any]:
    """All facts and warnings, as JSON; sizes in bytes. `folder` is the one whose disk runs would be written to."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: installed(name) for name in PACKAGES},
        "extras": {name: installed(name) for name in EXTRAS} | {"chromium": chromium()},
        "devices": devices(),
        "memory": memory(),
        "disks": {name: free_bytes(path) for name, path in _places(folder).items()},
        "caches": [{"what": what, "folder": str(path), "bytes": size} for what, path, size in caches()],
    }
    return facts | {"warnings": list(trouble(facts))}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def devices() -> dict[str, Any]:
    gpus = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        with torch.cuda.device(number):
            bf16 = torch.cuda.is_bf16_supported()
        gpus.append({"name": about.name, "bytes": about.total_memory, "bf16": bf16})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return {"cpu": name, "cores": cores, "threads": threads, "bf16": cpu_computes_bf16(), "gpus": gpus}


def cpu_computes_bf16() -> bool:
    """Whether the processor has instructions that multiply bf16 (AVX512-BF16, AMX-BF16), and torch uses them.

    Without them torch computes bf16 by other means, several times slower than fp32. ATEN_CPU_CAPABILITY=avx2 in the
    environment, which keeps torch from AVX512, means no.
    """
    below = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2")
    if below or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    # torch before 2.10; processors with AMX multiply bf16 with it
    return any(getattr(torch.cpu, name)() for name in _BF16_BEFORE if hasattr(torch.cpu, name))


def memory() -> dict[str, int | None]:
    """The machine's memory in bytes, and the limit of its container, if any."""
    return {"total": _memory_line("MemTotal"), "available": _memory_line("MemAvailable"), "limit": _container_limit()}


def caches() -> list[tuple[str, Path, int]]:
    """Each cache: what it holds, its folder, and its size in bytes."""
    cache = cache_folder()
    hub = Path(os.environ.get("HF_HUB_CACHE", Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub"))
    patterns = {
        "decoded photos": (cache, "photos-*"),
        "photos' features": (cache, "features-*"),
        "rendered photos": (cache, "rendered-*/**/*"),
        "weights from the Hugging Face hub": (hub.expanduser(), "**/blobs/*"),
        "weights from OpenAI": (Path("~/.cache/clip").expanduser(), "*"),
    }
    return [(what, path, _size(path, pattern)) for what, (path, pattern) in patterns.items()]


def chromium() -> str | None:
    """The path of a browser that can export figures, or None."""
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", "~/.cache/ms-playwright")).expanduser()
    return program or next((str(path) for path in sorted(folder.glob("chromium*"))), None)


def trouble(facts: dict[str, Any]) -> Iterator[str]:
    """Warnings about the facts of `survey`: what is wrong, and what to do."""
    for package, bad in COMPROMISED.items():
        if facts["versions"].get(package) in bad:
            yield f"{package} {facts['versions'][package]} is a compromised release: install another version now"
    if (broken := _torchvision_trouble()) is not None:
        torches = f"torch {facts['versions']['torch']} and torchvision {facts['versions']['torchvision']}"
        yield f"{torches} are incompatible ({broken}): install both from the same index"
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        yield "OMP_WAIT_POLICY is ACTIVE: spinning threads slow down other processes; unset it"
    devices = facts["devices"]
    if devices["threads"] > (devices["cores"] or devices["threads"]):
        yield f"torch would use {devices['threads']} threads on {devices['cores']} cores: set OMP_NUM_THREADS"
    for name, free in facts["disks"].items():
        if free is not None and free < LITTLE_DISK:
            yield f"{free / 1e9:.1f} GB are free on the disk of {name}: a run of a ViT-B/16 takes 2 to 3 GB"


def _torchvision_trouble() -> str | None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    try:
        torchvision.ops.nms(boxes, torch.tensor([1.0, 0.5]), 0.5)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None


def _places(folder: Path) -> dict[str, Path]:
    return {"this folder": folder, "temporary files": Path(tempfile.gettempdir()), "caches": cache_folder()}


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file()) if folder.is_dir() else 0


def _memory_line(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _container_limit() -> int | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            content = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if content.isdigit() and int(content) < 1 << 60:
            return int(content)
    return None
