#include "server/kv_report.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostRows = 200;       // of sequences, and of prefixes before their ancestors
constexpr size_t kMostNodes = 100'000;  // copied
constexpr size_t kMostCells = 16384;
constexpr const char* kMisses[] = {"none", "never_seen", "diverged", "evicted", "window"};
constexpr size_t kMostTenants = UINT16_MAX - 1;

/// Gives tenants their places in a snapshot.
class TenantRows {
 public:
  explicit TenantRows(KvSnapshot* snapshot) : snapshot_(snapshot) {}
  /// The last place is everybody's who came too late for one.
  size_t PlaceOf(uint64_t id) {
    const auto [it, fresh] = places_.emplace(id, snapshot_->tenants.size());
    if (fresh && snapshot_->tenants.size() < kMostTenants) {
      snapshot_->tenants.push_back({.id = id});
    } else if (fresh) {
      it->second = kMostTenants - 1;
    }
    return it->second;
  }

 private:
  KvSnapshot* snapshot_;
  std::unordered_map<uint64_t, size_t> places_;
};

char StateOf(const Sequence& s, bool running) {
  if (running) return 'r';
  if (s.preemptions > 0 && s.admitted_step > 0) return 'e';
  return s.waits_for != 0 ? 'p' : 'w';
}

void ReadSequences(const Engine& engine, KvSnapshot* out, TenantRows* rows) {
  const Scheduler& scheduler = engine.scheduler();
  const int32_t block_tokens = engine.kv().layout().block_tokens;
  size_t index = 0;
  scheduler.Visit([&](const Sequence& s) {
    const bool running = index++ < scheduler.running();
    const size_t place = rows->PlaceOf(s.tenant);
    KvSnapshot::TenantRow& tenant = out->tenants[place];
    ++(running ? tenant.running : tenant.waiting);
    int32_t held = 0;
    for (const BlockTable& table : s.kv.tables) {
      held += table.size();
      const TableView view = table.view();
      for (int32_t i = 0; i < view.count; ++i) {
        char& cell = out->cells[view.blocks[i]];
        const int64_t end = (int64_t{view.first_block} + i + 1) * block_tokens;
        if (cell == 'r' || cell == 'w' || cell == 's') {
          cell = 's';
        } else {
          cell = end > s.kv.computed ? 'w' : 'r';
        }
        out->owners[view.blocks[i]] = static_cast<uint16_t>(place + 1);
      }
    }
    tenant.blocks += held;
    out->sequences.push_back(
        {.id = s.id,
         .tenant = s.tenant,
         .state = StateOf(s, running),
         .prompt_tokens = s.prompt_tokens,
         .cached_tokens = s.cached_tokens,
         .computed_tokens = s.kv.computed,
         .output_tokens = s.output_tokens(),
         .blocks = held,
         .preemptions = s.preemptions,
         .age_s = s.times.total() + std::max(0.0, SecondsBetween(s.since_ns, out->time_ns))});
  });
}

void ReadNodes(const Engine& engine, KvSnapshot* out, TenantRows* rows) {
  const PrefixIndex& index = engine.kv().index();
  out->nodes.reserve(std::min(static_cast<size_t>(index.nodes()), kMostNodes));
  index.Visit([&](const PrefixNode& node) {
    const auto place = static_cast<uint16_t>(rows->PlaceOf(node.tenant) + 1);
    int32_t held = 0;
    for (const BlockRef& block : node.blocks) {
      if (!block) continue;
      ++held;
      char& cell = out->cells[block.id()];
      if (cell != '.') continue;
      cell = 'c';
      out->owners[block.id()] = place;
    }
    if (out->nodes.size() == kMostNodes) return;
    out->nodes.push_back({.id = node.id,
                          .parent = node.parent == nullptr ? 0 : node.parent->id,
                          .tenant = node.tenant,
                          .depth = node.depth,
                          .tokens = static_cast<int32_t>(node.tokens.size()),
                          .blocks = held,
                          .users = node.users,
                          .hits = node.hits,
                          .ready = node.ready});
  });
}

const char* NameOf(char state) {
  switch (state) {
    case 'r':
      return "running";
    case 'p':
      return "waiting_for_prefix";
    case 'e':
      return "preempted";
    default:
      return "waiting";
  }
}

/// The map with at most kMostCells cells. Of several blocks the one most in use shows.
Json MapJson(const KvSnapshot& s) {
  const size_t each = (s.cells.size() + kMostCells - 1) / kMostCells;
  constexpr std::string_view kByUse = ".crws";
  std::string cells;
  std::vector<uint16_t> owners;
  for (size_t i = 0; i < s.cells.size(); i += std::max<size_t>(each, 1)) {
    size_t best = i;
    for (size_t k = i; k < std::min(i + each, s.cells.size()); ++k) {
      if (kByUse.find(s.cells[k]) > kByUse.find(s.cells[best])) best = k;
    }
    cells += s.cells[best];
    owners.push_back(s.owners[best]);
  }
  Json runs = Json::array();
  for (size_t i = 0; i < owners.size();) {
    size_t end = i;
    while (end < owners.size() && owners[end] == owners[i]) ++end;
    runs.push_back(Json::array({static_cast<int>(owners[i]) - 1, end - i}));
    i = end;
  }
  return {{"cells", cells}, {"blocks_per_cell", std::max<size_t>(each, 1)}, {"owners", runs}};
}

/// The prefix tree, chains without branches as one entry: those that were hit most, and all that
/// lead to them.
class PrefixTree {
 public:
  explicit PrefixTree(const KvSnapshot& snapshot) : nodes_(snapshot.nodes) {
    for (size_t i = 0; i < nodes_.size(); ++i) by_id_[nodes_[i].id] = i;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (Parent(i) != kNone) ++children_[Parent(i)];
    }
  }

  Json Build(const std::map<uint64_t, std::string>& names) {
    std::vector<size_t> ends;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (EndsChain(i)) ends.push_back(i);
    }
    const auto hotter = [this](size_t a, size_t b) {
      return nodes_[a].hits != nodes_[b].hits ? nodes_[a].hits > nodes_[b].hits
                                              : nodes_[a].id < nodes_[b].id;
    };
    const size_t kept = std::min(ends.size(), kMostRows);
    std::partial_sort(ends.begin(), ends.begin() + static_cast<std::ptrdiff_t>(kept), ends.end(),
                      hotter);
    std::map<uint64_t, size_t> shown;  // by id: parents come before their children
    for (size_t i = 0; i < kept; ++i) {
      for (size_t at = ends[i]; at != kNone; at = Parent(Begin(at))) {
        if (!shown.emplace(nodes_[at].id, at).second) break;
      }
    }
    Json out = Json::array();
    for (const auto& [id, end] : shown) out.push_back(Entry(end, names));
    return out;
  }

 private:
  static constexpr size_t kNone = SIZE_MAX;
  size_t Parent(size_t i) const {
    const auto it = by_id_.find(nodes_[i].parent);
    return it == by_id_.end() ? kNone : it->second;
  }
  /// True if the node does not go on into its only child as one chain.
  bool EndsChain(size_t i) const {
    const auto it = children_.find(i);
    return it == children_.end() || it->second != 1 || !continued_.count(i);
  }
  /// The first node of the chain that ends at `i`.
  size_t Begin(size_t i) const {
    for (size_t up = Parent(i); up != kNone && !EndsChain(up); up = Parent(i)) i = up;
    return i;
  }
  Json Entry(size_t end, const std::map<uint64_t, std::string>& names) const {
    const size_t begin = Begin(end);
    int64_t tokens = 0, blocks = 0;
    for (size_t i = end;; i = Parent(i)) {
      tokens += nodes_[i].tokens;
      blocks += nodes_[i].blocks;
      if (i == begin) break;
    }
    const size_t parent = Parent(begin);
    const auto name = names.find(nodes_[end].tenant);
    return {{"id", nodes_[end].id},
            {"parent", parent == kNone ? Json() : Json(nodes_[parent].id)},
            {"depth", nodes_[begin].depth},
            {"tokens", tokens},
            {"hits", nodes_[end].hits},
            {"users", nodes_[end].users},
            {"blocks", blocks},
            {"tenant", name == names.end() ? Json() : Json(name->second)},
            {"state", nodes_[end].ready ? "ready" : "computing"}};
  }

 public:
  /// Finds which nodes only lead on: one child with the same hits and users.
  void FindChains() {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      const size_t up = Parent(i);
      if (up == kNone || children_[up] != 1) continue;
      const KvSnapshot::Node &a = nodes_[up], &b = nodes_[i];
      if (a.hits == b.hits && a.users == b.users && a.ready == b.ready) continued_.insert(up);
    }
  }

 private:
  const std::vector<KvSnapshot::Node>& nodes_;
  std::unordered_map<uint64_t, size_t> by_id_;
  std::unordered_map<size_t, int> children_;
  std::unordered_set<size_t> continued_;
};

Json PercentilesJson(const Percentiles& p) {
  return {{"p50", p.p50 * 1e3}, {"p90", p.p90 * 1e3}, {"p99", p.p99 * 1e3}};
}

Json SequencesJson(const KvSnapshot& s, const KvView& view) {
  Json out = Json::array();
  for (size_t i = 0; i < std::min(s.sequences.size(), kMostRows); ++i) {
    const KvSnapshot::Row& r = s.sequences[i];
    const auto name = view.tenant_names.find(r.tenant);
    out.push_back({{"id", r.id},
                   {"tenant", name == view.tenant_names.end() ? "" : name->second},
                   {"state", NameOf(r.state)},
                   {"prompt_tokens", r.prompt_tokens},
                   {"cached_tokens", r.cached_tokens},
                   {"computed_tokens", r.computed_tokens},
                   {"output_tokens", r.output_tokens},
                   {"blocks", r.blocks},
                   {"age_s", r.age_s},
                   {"preemptions", r.preemptions}});
  }
  return out;
}

Json TenantsJson(const KvSnapshot& s, const KvView& view) {
  Json out = Json::array();
  for (const KvSnapshot::TenantRow& t : s.tenants) {
    const auto name = view.tenant_names.find(t.id);
    out.push_back({{"name", name == view.tenant_names.end() ? "" : name->second},
                   {"running", t.running},
                   {"waiting", t.waiting},
                   {"blocks", t.blocks},
                   {"quota_blocks", t.quota_blocks},
                   {"weight", t.weight},
                   {"served_tokens", t.served_tokens}});
  }
  return out;
}

Json StepsJson(const KvSnapshot& s, const KvView& view) {
  Json out = Json::array();
  for (const StepRecord& r : s.steps) {
    if (r.id <= view.after_step) continue;
    out.push_back({{"id", r.id},
                   {"t_ms", SecondsBetween(s.time_ns, r.start_ns) * 1e3},
                   {"ms", r.seconds * 1e3},
                   {"decode", r.decode},
                   {"prefill", r.prefill},
                   {"limit_ms", r.limit_s * 1e3},
                   {"running", r.running},
                   {"waiting", r.waiting},
                   {"preempted", r.preempted}});
  }
  return out;
}

}  // namespace

KvSnapshot ReadKvTotals(const Engine& engine) {
  const KvManager& kv = engine.kv();
  const BlockPool& pool = kv.pool();
  KvSnapshot out;
  out.time_ns = engine.clock().NowNs();
  out.blocks = pool.total();
  out.free = pool.free();
  out.cached_idle = kv.index().idle_blocks();
  out.unfilled_slots = kv.index().unfilled_slots();
  out.evicted_blocks = kv.index().evicted_blocks();
  out.evicted_behind_window = kv.index().evicted_behind_window();
  out.dropped_blocks = kv.index().dropped_blocks();
  out.block_tokens = kv.layout().block_tokens;
  out.block_bytes = kv.layout().block_bytes;
  out.bytes_per_token = kv.layout().bytes_per_token();
  out.decode = engine.step_log().decode();
  out.prefill = engine.step_log().prefill();
  out.mixed = engine.step_log().mixed();
  out.running = engine.scheduler().running();
  out.waiting = engine.scheduler().waiting();
  out.counters = engine.scheduler().counters();
  return out;
}

KvSnapshot ReadKv(const Engine& engine) {
  KvSnapshot out = ReadKvTotals(engine);
  out.cells.assign(static_cast<size_t>(out.blocks), '.');
  out.owners.assign(static_cast<size_t>(out.blocks), 0);
  TenantRows rows(&out);
  engine.scheduler().VisitTenants([&](uint64_t id, const TenantOptions& options, double served) {
    KvSnapshot::TenantRow& row = out.tenants[rows.PlaceOf(id)];
    row.weight = options.weight;
    row.quota_blocks = options.kv_blocks;
    row.served_tokens = served * options.weight;
  });
  ReadSequences(engine, &out, &rows);
  ReadNodes(engine, &out, &rows);
  out.steps = engine.step_log().Kept();
  return out;
}

Json ToJson(const KvSnapshot& s, const KvView& view) {
  PrefixTree tree(s);
  tree.FindChains();
  const int64_t referenced = s.blocks - s.free - s.cached_idle;
  Json memory = Json::array();
  for (const LedgerEntry& e : view.ledger.entries)
    memory.push_back({{"owner", e.owner}, {"bytes", e.bytes}, {"what", e.what}});
  Json misses = Json::object();
  for (size_t i = 0; i < std::size(kMisses); ++i) misses[kMisses[i]] = s.counters.misses[i];
  return {
      {"time", view.unix_time},
      {"model", view.model},
      {"pool",
       {{"blocks", s.blocks},
        {"block_tokens", s.block_tokens},
        {"block_bytes", s.block_bytes},
        {"free", s.free},
        {"referenced", referenced},
        {"cached_idle", s.cached_idle},
        {"usage",
         s.blocks > 0 ? static_cast<double>(referenced) / static_cast<double>(s.blocks) : 0.0},
        {"unfilled_slots", s.unfilled_slots},
        {"evicted_blocks", s.evicted_blocks}}},
      {"map", MapJson(s)},
      {"sequences", SequencesJson(s, view)},
      {"sequences_total", s.sequences.size()},
      {"prefixes", tree.Build(view.tenant_names)},
      {"tenants", TenantsJson(s, view)},
      {"steps", StepsJson(s, view)},
      {"latency", {{"ttft_ms", PercentilesJson(view.ttft)}, {"itl_ms", PercentilesJson(view.itl)}}},
      {"misses", std::move(misses)},
      {"memory", std::move(memory)},
      {"resident_bytes", view.ledger.resident_bytes},
      {"counters",
       {{"steps", s.counters.steps},
        {"admitted", s.counters.admitted},
        {"preemptions", s.counters.preemptions},
        {"prompt_tokens", s.counters.prompt_tokens},
        {"cached_tokens", s.counters.cached_tokens},
        {"layered", s.counters.layered},
        {"decode_seconds", s.decode.seconds},
        {"prefill_seconds", s.prefill.seconds},
        {"mixed_seconds", s.mixed.seconds}}}};
}

MetricGauges GaugesOf(const KvSnapshot& s, const Ledger& ledger) {
  MetricGauges g;
  g.running = static_cast<int64_t>(s.running);
  g.waiting = static_cast<int64_t>(s.waiting);
  const int64_t referenced = s.blocks - s.free - s.cached_idle;
  g.kv_usage = s.blocks > 0 ? static_cast<double>(referenced) / static_cast<double>(s.blocks) : 0;
  g.kv_blocks = s.blocks;
  g.kv_cached_blocks = s.cached_idle;
  g.kv_unfilled_slots = s.unfilled_slots;
  g.kv_bytes_per_token = s.bytes_per_token;
  g.steps = s.counters.steps;
  g.preemptions = s.counters.preemptions;
  g.evictions = {{"room", s.evicted_blocks - s.evicted_behind_window},
                 {"window", s.evicted_behind_window},
                 {"dropped", s.dropped_blocks}};
  g.prompt_tokens = s.counters.prompt_tokens;
  g.cached_tokens = s.counters.cached_tokens;
  for (size_t i = 0; i < std::size(kMisses); ++i)
    g.misses.emplace_back(kMisses[i], s.counters.misses[i]);
  for (const LedgerEntry& e : ledger.entries) g.memory.emplace_back(e.owner, e.bytes);
  for (const auto& [phase, totals] :
       {std::pair{"decode", s.decode}, {"prefill", s.prefill}, {"mixed", s.mixed}}) {
    g.steps_by_phase.push_back({.phase = phase,
                                .seconds = totals.seconds,
                                .flops = static_cast<double>(totals.work.flops),
                                .bytes_read = static_cast<double>(totals.work.bytes_read)});
  }
  return g;
}

}  // namespace kvasir
