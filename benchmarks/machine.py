"""On what machine a benchmark ran, and how long something takes on it."""

import platform
import time
from pathlib import Path


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def seconds(act) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin
