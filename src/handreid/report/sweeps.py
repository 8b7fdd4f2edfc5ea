from pathlib import Path
def sweep_figure(folder: Path, path: Path) -> list[Path]:
    return []
