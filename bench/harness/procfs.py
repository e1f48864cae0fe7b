"""What the kernel knows about processes: CPU time, memory, and how busy the rest of the machine
was."""

import os
import pathlib

TICKS = os.sysconf("SC_CLK_TCK")


def _stat_fields(text):
    # The command name is in parentheses and may hold spaces.
    return text[text.rindex(")") + 2 :].split()


def descendants(pid):
    """The process and every process below it that is alive."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(pathlib.Path(f"/proc/{parent}/task").iterdir())
        except FileNotFoundError:
            continue
        for task in tasks:
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except FileNotFoundError:
                continue
    return found


def cpu_seconds(pid):
    """User and system time of the process and its descendants, ended threads included."""
    total = 0
    for each in descendants(pid):
        try:
            fields = _stat_fields(pathlib.Path(f"/proc/{each}/stat").read_text())
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def thread_cpu_ns(pid):
    """Nanoseconds on a CPU per living thread: {thread id: (name, ns)}."""
    threads = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            threads[int(task.name)] = (name, int((task / "schedstat").read_text().split()[0]))
        except FileNotFoundError:
            continue
    return threads


def _status_kb(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise ValueError(f"/proc/{pid}/status has no {key}")


def rss_bytes(pid):
    return sum(_status_kb(each, "VmRSS") for each in descendants(pid)) * 1024


def peak_rss_bytes(pid):
    return sum(_status_kb(each, "VmHWM") for each in descendants(pid)) * 1024


def machine_busy_seconds():
    """CPU seconds that all cores together spent not idle since boot (time stolen by the
    hypervisor included)."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICKS


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def cores():
    return len(os.sched_getaffinity(0))
