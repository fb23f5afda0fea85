"""llama.cpp as a worker (see worker.py), at the level of llama_decode, as llama-batched-bench:

    python3 worker_llama_cpp.py MODEL.gguf

Settings: threads, ubatch (n_batch is the whole prompt, so that llama.cpp sees it at once), flash, unified.
"""
import resource
import sys
import time

import llama_cpp as ll
import worker


class Side:
    def __init__(self, path):
        self.log = ll.llama_log_callback(lambda level, text, data: None)
        ll.llama_log_set(self.log, None)
        ll.llama_backend_init()
        self.path = path.encode()
        self.model = self.load()
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.shape = self.context = self.batch = None

    def load(self):
        model = ll.llama_model_load_from_file(self.path, ll.llama_model_default_params())
        assert model, "llama.cpp cannot load the model"
        return model

    def start(self, job):
        """Seconds to load the model a second time and compute one token with it."""
        begin = time.monotonic()
        loaded, self.model, self.shape = self.model, self.load(), None
        self.prepare(job["settings"], job)
        self.decode([(0, 0, 0, 1)])
        seconds = time.monotonic() - begin
        ll.llama_free(self.context)
        ll.llama_batch_free(self.batch)
        ll.llama_model_free(self.model)
        self.model, self.shape, self.context = loaded, None, None
        return {"start_s": seconds}

    def prepare(self, s, job):
        """A context for the job; the one that is there if it fits."""
        tokens = job["batch"] * (job["pp"] + job["tg"])
        shape = (tuple(sorted(s.items())), tokens, job["batch"])
        if shape == self.shape: return
        if self.context:
            ll.llama_batch_free(self.batch)
            ll.llama_free(self.context)
        p = ll.llama_context_default_params()
        each = -(-(job["pp"] + job["tg"]) // 256) * 256
        p.n_ctx, p.n_seq_max = each * job["batch"], job["batch"]
        p.n_batch, p.n_ubatch = max(s["ubatch"], job["pp"] * job["batch"]), s["ubatch"]
        p.n_threads = p.n_threads_batch = s["threads"]
        p.flash_attn_type, p.kv_unified = int(s["flash"]), s.get("unified", False)
        self.context, self.shape = ll.llama_init_from_model(self.model, p), None
        assert self.context, "llama.cpp refuses the settings"
        self.batch, self.shape = ll.llama_batch_init(p.n_batch, 0, 1), shape

    def decode(self, tokens):
        """`tokens`: (token, position, sequence, whether its logits are wanted)."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, (token, position, sequence, logits) in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, position, 1, logits
            b.seq_id[i][0] = sequence
        assert ll.llama_decode(self.context, b) == 0, "llama_decode failed"
        ll.llama_synchronize(self.context)

    def answer(self, job):
        if job["metric"] == "start": return self.start(job)
        self.prepare(job["settings"], job)
        ll.llama_memory_clear(ll.llama_get_memory(self.context), False)
        pp, tg, count = job["pp"], job["tg"], job["batch"]
        tokens = [(t, i, s, i == pp - 1) for s in range(count) for i, t in enumerate(worker.prompt(pp, s, self.vocab))]
        begin = time.monotonic()
        self.decode(tokens)
        middle = time.monotonic()
        output = worker.prompt(tg, -1, self.vocab)  # which tokens does not matter for the time
        for i in range(tg): self.decode([(output[i], pp + i, s, 1) for s in range(count)])
        resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
        return {"pp_s": middle - begin, "tg_s": time.monotonic() - middle, "resident_mib": resident / 2**20}


worker.serve(Side(sys.argv[1]).answer)
