#!/usr/bin/env python3
"""Writes grafana-dashboard.json: panels over the metrics of `kvasir serve`."""
import json
import pathlib

PANELS = [
    ("Requests", "short", [("vllm:num_requests_running", "running"), ("vllm:num_requests_waiting", "waiting")]),
    ("Tokens a second", "short", [("rate(vllm:generation_tokens_total[1m])", "output"), ("rate(vllm:prompt_tokens_total[1m])", "prompt")]),
    ("Time to first token", "s", [(f"histogram_quantile({q}, rate(vllm:time_to_first_token_seconds_bucket[5m]))", f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]),
    ("Inter-token latency", "s", [(f"histogram_quantile({q}, rate(vllm:inter_token_latency_seconds_bucket[5m]))", f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]),
    ("KV pool in use", "percentunit", [("vllm:kv_cache_usage_perc", "held"), ("kvasir:kv_cached_blocks / kvasir:kv_blocks", "cached")]),
    ("Prompt tokens from the cache", "percentunit", [("rate(vllm:prefix_cache_hits_total[5m]) / rate(vllm:prefix_cache_queries_total[5m])", "hit rate")]),
    ("Why no more was cached", "short", [("rate(kvasir:prefix_misses_total[5m])", "{{reason}}")]),
    ("Preempted, given up", "short", [("rate(vllm:num_preemptions_total[5m])", "preemptions"), ("rate(kvasir:evicted_blocks_total[5m])", "blocks: {{reason}}")]),
    ("Where the time of steps goes", "percentunit", [("rate(kvasir:step_seconds_total[1m])", "{{phase}}")]),
    ("Share of the machine's limits", "percentunit",
     [("rate(kvasir:step_flops_total[1m]) / rate(kvasir:step_seconds_total[1m]) / on(instance) group_left kvasir:machine_flops_per_second",
       "compute, {{phase}}"),
      ("rate(kvasir:step_read_bytes_total[1m]) / rate(kvasir:step_seconds_total[1m]) / on(instance) group_left "
       "kvasir:machine_read_bytes_per_second", "memory, {{phase}}")]),
    ("Saved by the cache", "s", [("rate(kvasir:cache_saved_seconds_total[5m])", "seconds of prefill a second")]),
    ("Output tokens a second by tenant", "short", [("rate(kvasir:tenant_output_tokens_total[1m])", "{{tenant}}")]),
    ("Refused", "short", [("rate(kvasir:refused_requests_total[5m])", "{{status}} {{reason}}"), ("rate(kvasir:http_cut_total[5m])", "{{reason}}")]),
    ("Ended", "short", [("rate(kvasir:requests_ended_total[5m])", "{{reason}}")]),
    ("Memory by owner", "bytes", [("kvasir:memory_bytes", "{{owner}}")]),
]


def dashboard():
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [{"id": i + 1, "type": "timeseries", "title": title, "datasource": source,
               "gridPos": {"h": 8, "w": 12, "x": 12 * (i % 2), "y": 8 * (i // 2)},
               "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
               "targets": [{"refId": chr(65 + k), "datasource": source, "expr": query, "legendFormat": legend}
                           for k, (query, legend) in enumerate(queries)]}
              for i, (title, unit, queries) in enumerate(PANELS)]
    return {"title": "Kvasir", "uid": "kvasir", "schemaVersion": 38, "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}]},
            "panels": panels}


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("grafana-dashboard.json")
    path.write_text(json.dumps(dashboard(), indent=1) + "\n")
