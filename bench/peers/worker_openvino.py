"""OpenVINO GenAI as a worker (see worker.py): its ContinuousBatchingPipeline, stepped from here, on a GGUF file.

    python3 worker_openvino.py MODEL.gguf

Settings: threads, step (max_num_batched_tokens), kv (KV_CACHE_PRECISION), group (DYNAMIC_QUANTIZATION_GROUP_SIZE).
"""
import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as og
import worker

VOCAB = 32000  # prompts use ids below it; every model here has more


class Side:
    def __init__(self, path):
        self.path, self.shape, self.pipe, self.requests = path, None, None, 0

    def prepare(self, s, job):
        tokens = job["batch"] * (job["pp"] + job["tg"] + 32)
        if self.shape and self.shape[0] == s and self.shape[1] >= tokens: return
        self.pipe = self.shape = None
        c = og.SchedulerConfig()
        c.max_num_batched_tokens, c.max_num_seqs, c.dynamic_split_fuse = s["step"], max(64, job["batch"]), True
        c.enable_prefix_caching = True
        c.num_kv_blocks = 2 * tokens // 32 + 64  # of 32 tokens
        properties = {"INFERENCE_NUM_THREADS": s["threads"]}
        if "kv" in s: properties["KV_CACHE_PRECISION"] = s["kv"]
        if "group" in s: properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = s["group"]
        self.pipe = og.ContinuousBatchingPipeline(self.path, c, "CPU", properties)
        self.shape = (s, tokens)

    def run(self, prompts, tg):
        """Seconds to the first token of all prompts, and from there to the end."""
        config = og.GenerationConfig(max_new_tokens=tg + 1, ignore_eos=True, do_sample=False)
        handles = []
        begin = time.monotonic()
        for p in prompts:
            self.requests += 1
            handles.append(self.pipe.add_request(self.requests, ov.Tensor(np.array([p], dtype=np.int64)), config))
        silent, middle = list(handles), begin
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
            if silent:
                silent = [h for h in silent if not h.can_read()]
                if not silent: middle = time.monotonic()
        end = time.monotonic()
        made = sum(len(r.generated_ids) for h in handles for r in h.read_all())
        assert made == len(prompts) * (tg + 1), f"{made} tokens were made"
        return middle - begin, end - middle

    def answer(self, job):
        self.prepare(job["settings"], job)
        # Prompts of their own for every job, so that the prefix cache has none of them.
        prompts = [worker.prompt(job["pp"], self.requests + s + 1, VOCAB) for s in range(job["batch"])]
        out = dict(zip(("pp_s", "tg_s"), self.run(prompts, job["tg"])))
        if job["metric"] == "again": out["again_s"] = self.run(prompts, 0)[0]
        return out


worker.serve(Side(sys.argv[1]).answer)
