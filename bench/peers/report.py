"""The results as JSON, a Markdown table and an SVG chart."""
import datetime
import json
import pathlib
import platform
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PEERS = ("llama.cpp", "OpenVINO")


def about(a):
    """The machine, the day and the command."""
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    flags = next((l.split(":")[1].split() for l in open("/proc/cpuinfo") if l.startswith("flags")), [])
    shown = [f for f in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16") if f in flags]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True).stdout.strip()
    from install import LLAMA_CPP, OPENVINO
    return {"date": str(datetime.date.today()), "cpu": cpu, "threads": a.threads, "isa": shown, "commit": commit, "pairs": a.pairs,
            "command": shlex.join(["python3", "bench/peers/run.py", *sys.argv[1:]]), "peers": {"llama.cpp": LLAMA_CPP + " (clang)", "OpenVINO": ", ".join(OPENVINO)}}


def number(x):
    return f"{x:,.0f}" if x >= 1000 else f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def value(side):
    return f"{number(side['median'])} ({number(side['least'])}-{number(side['most'])})" if side else ""


def ratio(row, peer):
    """How many times the peer's speed Kvasir has; of times, how many times shorter."""
    ours, theirs = row["sides"].get("Kvasir"), row["sides"].get(peer)
    if not ours or not theirs: return None
    r = ours["median"] / theirs["median"]
    return 1 / r if row["unit"] in ("ms", "s", "MiB") else r


def target(row, targets):
    """A cell such as "4 x llama.cpp, 80% of the limit"."""
    kinds = {"limit": "{:g}% of the limit", "s": "{:g} s", "steps": "{:g} decode steps", "gain": "{:g}% of the probe's gain"}
    return ", ".join(kinds[k].format(v) if k in kinds else f"{v:g} x {k}" for k, v in targets.items())


def holds(row, targets):
    """Whether all targets hold that could be measured; None if none could."""
    seen = []
    for kind, wanted in targets.items():
        at_most = kind in ("s", "steps")
        got = {"limit": row.get("limit_pct"), "steps": row.get("steps"), "gain": row.get("gain_pct"),
               "s": row["sides"].get("Kvasir", {}).get("median")}.get(kind, ratio(row, kind))
        if got is not None: seen.append(got <= wanted if at_most else got >= wanted)
    return all(seen) if seen else None


def limit(row):
    if "limit_pct" in row: return f"{row['limit_pct']:.0f}%"
    if "steps" in row: return f"{row['steps']:.2f} steps"
    if "gain_pct" in row: return f"{row['gain_pct']:.0f}% of {row['probe_gain']:.2f} x"
    return ""


def one_line(row):
    parts = [f"{name} {value(side)}" + (f" = {ratio(row, name):.2f} x" if name in PEERS and ratio(row, name) else "") for name, side in row["sides"].items()]
    return f"{row['name']} [{row['unit']}]: " + "; ".join(parts) + (f"; limit {limit(row)}" if limit(row) else "")


def probe(row):
    both = [row[k] for k in ("probes_before", "probes_after") if k in row]
    if not both: return ""
    return " ".join(f"{'/'.join(f'{p[key] / scale:.{digits}f}' for p in both)}" for key, scale, digits in (("bandwidth_gb_s", 1, 0), ("int8_gops", 1000, 1), ("float_gflops", 1000, 1)))


def markdown(result):
    a = result["about"]
    peers = [p for p in PEERS if any(p in r["sides"] for r in result["rows"])]
    lines = [
        "# Kvasir and its peers", "",
        f"{a['date']}, {a['cpu']}, {a['threads']} threads, {', '.join(a['isa'])}; Kvasir at {a['commit']}; {'; '.join(a['peers'][p] for p in peers)}.",
        f"Medians (least-most) of {a['pairs']} pairs in turn; the 1B shape with random weights, Q4_0 (OpenVINO: int4, groups of 128), unless said."
        + ("" if "amx_int8" in a["isa"] else " The targets mean a machine with AMX, which this is not."), "",
        f"    {a['command']}", "",
        "| | unit | Kvasir | " + " | ".join(f"{p} | ratio" for p in peers) + " | of the limit | must | | aim | | probes: GB/s, int8 TOP/s, float TFLOP/s, before/after |",
        "| --- | --- | ---: |" + " ---: | ---: |" * len(peers) + " ---: | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        marks = [{True: "yes", False: "**no**", None: ""}[holds(row, row[k])] for k in ("must", "aim")]
        cells = [row["title"], row["unit"], value(row["sides"].get("Kvasir"))]
        for p in peers:
            r = ratio(row, p)
            cells += [value(row["sides"].get(p)), f"{r:.2f} x" if r else ""]
        cells += [limit(row), target(row, row["must"]), marks[0], target(row, row["aim"]), marks[1], probe(row)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Settings of the peers, the best of those tried:", ""]
    for row in result["rows"]:
        for peer, settings in row["settings"].items():
            lines.append(f"- {row['name']}, {peer}: {plain(settings)}" + (" (tried: " + "; ".join(f"{plain(t['settings'])}: {number(t['value'])}" for t in row["tried"][peer]) + ")" if row["tried"][peer] else ""))
    return "\n".join(lines) + "\n"


def plain(settings):
    return " ".join(f"{k} {v}" for k, v in settings.items() if k != "threads")


COLORS = {"Kvasir": "#2f6fde", "llama.cpp": "#9a9a9a", "OpenVINO": "#d08a3c"}


def chart(result):
    """Bars of tokens/s of the rows with a peer, relative to llama.cpp's."""
    rows = [r for r in result["rows"] if r["unit"] == "tokens/s" and "llama.cpp" in r["sides"]]
    left, wide, bar, gap = 230, 480, 13, 14
    sides = lambda r: [s for s in COLORS if s in r["sides"]]
    relative = lambda r, s: r["sides"][s]["median"] / r["sides"]["llama.cpp"]["median"]
    most = max((relative(r, s) for r in rows for s in sides(r)), default=1)
    y, body = 44, []
    text = lambda x, y, s, more="": f'<text x="{x:.0f}" y="{y:.0f}" {more}>{s}</text>'
    for i, name in enumerate(name for name in COLORS if any(name in r["sides"] for r in rows)):
        body += [f'<rect x="{left + 110 * i}" y="12" width="12" height="12" fill="{COLORS[name]}"/>', text(left + 110 * i + 17, 22, name)]
    for r in rows:
        body.append(text(left - 10, y + bar * len(sides(r)) / 2 + 4, r["title"], 'text-anchor="end"'))
        for s in sides(r):
            w = wide * relative(r, s) / most
            body += [f'<rect x="{left}" y="{y}" width="{w:.1f}" height="{bar - 2}" fill="{COLORS[s]}"/>', text(left + w + 5, y + bar - 3, number(r["sides"][s]["median"]))]
            y += bar
        y += gap
    body.append(text(left, y + 4, f"tokens/s; bars relative to llama.cpp. {result['about']['cpu']} ({result['about']['isa'][-1]}), {result['about']['threads']} threads, {result['about']['date']}", 'fill="#777"'))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 70}" height="{y + 16}" font-family="sans-serif" font-size="12" fill="#555">'
            + "".join(body) + "</svg>\n")


def write(path, result):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    path.with_suffix(".svg").write_text(chart(result))
