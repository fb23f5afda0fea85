"""What `kvasir simulate` writes: the picture is XML that draws what it says, the table has what happened to each request."""
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "server"))
from harness import BINARY  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


class Simulate(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.svg, self.csv = (os.path.join(self.folder.name, name) for name in ("plot.svg", "rows.csv"))

    def simulate(self, *flags):
        out = subprocess.run([BINARY, "simulate", *flags, "--json", "--plot", self.svg, "--csv", self.csv], check=True,
                             stdout=subprocess.PIPE, env={**os.environ, "XDG_CONFIG_HOME": "/nonexistent"})
        with open(self.csv, newline="") as file:
            rows = list(csv.DictReader(file))
        return json.loads(out.stdout), rows, xml.etree.ElementTree.parse(self.svg).getroot()

    def trace(self, *requests):
        path = os.path.join(self.folder.name, "trace.jsonl")
        with open(path, "w") as file:
            for ms, tokens, ids in requests:
                request = {"timestamp": ms, "input_length": tokens, "output_length": 3}
                file.write(json.dumps({**request, **({"hash_ids": ids} if ids is not None else {})}) + "\n")
        return path

    def texts(self, svg):
        return [t.text for t in svg.iter(SVG + "text")]

    def assert_within(self, svg):
        """All that is drawn is within the picture."""
        _, _, width, height = map(float, svg.get("viewBox").split())
        shapes = [s for kind in ("polyline", "polygon") for s in svg.iter(SVG + kind)]
        for shape in shapes:
            for x, y in re.findall(r"(\S+),(\S+)", shape.get("points")):
                self.assertTrue(0 <= float(x) <= width and 0 <= float(y) <= height, (x, y))
        return shapes

    def test_the_plot_has_queue_running_kv_by_owner_hit_rate_and_latency(self):
        result, _, svg = self.simulate("--workload", "flood", "--requests", "300", "--rate", "30", "--pool", "3000")
        self.assertEqual(svg.tag, SVG + "svg")
        texts = self.texts(svg)
        for wanted in ("Sequences", "running", "waiting", "KV blocks by owner", "tenant 0", "tenant 3", "cached", "the pool, 3000 blocks",
                       "Prompt tokens from the cache, of all so far", "Latency: p50 (thick), up to p99 (thin)",
                       "to the first token (TTFT)", "between tokens (ITL)"):
            self.assertIn(wanted, texts)
        shapes = self.assert_within(svg)
        lines = [s for s in shapes if s.tag == SVG + "polyline"]
        self.assertEqual(len(lines), 2 + 1 + 4)
        # Stacked: each area begins where the one under it ends.
        areas = [s.get("points").split() for s in shapes if s.tag == SVG + "polygon"][:5]
        for below, above in zip(areas, areas[1:]):
            self.assertEqual(below[len(below) // 2:][::-1], above[:len(above) // 2])

    def test_the_table_has_the_tenant_and_the_latencies_of_each_request(self):
        result, rows, _ = self.simulate("--workload", "flood", "--requests", "200", "--rate", "30")
        self.assertEqual(len(rows), 200)
        self.assertEqual(list(rows[0]), ["arrival_s", "first_token_s", "finished_s", "prompt_tokens", "cached_tokens", "output_tokens",
                                         "preemptions", "miss", "refused", "tenant", "ttft_s", "itl_mean_s", "itl_max_s"])
        self.assertEqual({r["tenant"] for r in rows}, {"0", "1", "2", "3"})
        self.assertEqual(sum(int(r["cached_tokens"]) for r in rows), result["cached_tokens"])
        for r in rows:
            arrival, first, end, ttft, mean, most = (float(r[k]) for k in ("arrival_s", "first_token_s", "finished_s", "ttft_s",
                                                                           "itl_mean_s", "itl_max_s"))
            self.assertAlmostEqual(ttft, first - arrival, delta=2e-4)
            self.assertAlmostEqual(mean, (end - first) / max(1, int(r["output_tokens"]) - 1), delta=2e-4)
            self.assertLessEqual(mean, most + 1e-4)
        ttfts = sorted(float(r["ttft_s"]) for r in rows)
        self.assertAlmostEqual(ttfts[100] * 1000, result["ttft_ms"]["p50"], delta=0.2)

    def test_lines_without_hash_ids_have_nothing_in_common_with_others(self):
        trace = self.trace((0, 2048, None), (10000, 2048, [0, 1, 2, 3]), (20000, 2048, None), (30000, 2048, [131072, 131073, 131074, 131075]),
                           (40000, 2048, [0, 1, 2, 3]))
        result, rows, svg = self.simulate(trace)
        self.assertEqual([int(r["cached_tokens"]) for r in rows], [0, 0, 0, 0, 2047])
        self.assertIn("running sequences", self.texts(svg))

    def test_a_single_request_and_one_that_never_fits_are_drawn_too(self):
        for flags, refused in (([], 0), (["--pool", "1"], 1)):
            result, rows, svg = self.simulate(self.trace((0, 600, None)), *flags)
            self.assertEqual((result["refused"], rows[0]["refused"]), (refused, str(refused)))
            self.assert_within(svg)
            with open(self.svg) as file:
                self.assertNotRegex(file.read(), r"\bnan\b|\binf\b")


if __name__ == "__main__":
    unittest.main()
