#include "app/simulate_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <span>

namespace kvasir {
namespace {

constexpr double kLeft = 74, kRight = 24, kWidth = 880, kPanel = 132, kTop = 44, kGap = 54;
constexpr size_t kNamedTenants = 5, kMostBuckets = 80;

// Apart in lightness too, for those who do not see all colours.
constexpr const char* kInk = "#22242a";
constexpr const char* kDim = "#6a6f7a";
constexpr const char* kGrid = "#e9e6de";
constexpr const char* kTenantColors[] = {"#1f5f8b", "#d98e2b", "#2f7f78", "#7a2145", "#8a7fc0"};
constexpr const char* kOthersColor = "#b9b4a7";
constexpr const char* kCachedColor = "#d5e3f2";

struct Tick {
  double at;
  std::string label;
};

/// A scale from 0 (or, of logarithms, from `least`) to `most`, and where its lines are.
struct Scale {
  double least = 0, most = 1;
  bool logarithmic = false;
  std::vector<Tick> ticks;

  /// 0 at the bottom, 1 at the top.
  double Place(double value) const {
    if (!logarithmic) return value / most;
    return std::clamp(std::log(std::max(value, least) / least) / std::log(most / least), 0.0, 1.0);
  }
};

Scale Linear(double most, double factor, const char* unit) {
  const double raw = std::max(most, 1e-9) / 5;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double nice : {5.0, 2.0, 1.0}) {
    if (nice * power >= raw) step = nice * power;
  }
  Scale out;
  out.most = std::max(most, 1e-9) * 1.06;
  for (int i = 0; i * step <= most * 1.001; ++i)
    out.ticks.push_back({i * step, fmt::format("{:.6g}{}", i * step * factor, unit)});
  return out;
}

/// Seconds from a power of ten to another.
Scale Logarithmic(double least, double most) {
  Scale out{.logarithmic = true, .ticks = {}};
  const int from = static_cast<int>(std::floor(std::log10(least)));
  const int to = std::max(from + 1, static_cast<int>(std::ceil(std::log10(most))));
  out.least = std::pow(10, from);
  out.most = std::pow(10, to);
  for (int p = from; p <= to; ++p) {
    const double at = std::pow(10, p);
    out.ticks.push_back(
        {at, at < 0.9 ? fmt::format("{:.6g} ms", at * 1e3) : fmt::format("{:.6g} s", at)});
  }
  return out;
}

Scale Times(double end) {
  Scale out;
  out.most = std::max(end, 1e-9);
  const double unit = end <= 180 ? 1 : end <= 3 * 3600 ? 60 : 3600;
  const char* name = unit == 1 ? "s" : unit == 60 ? "min" : "h";
  const Scale units = Linear(out.most / unit * 0.4, 1, "");  // for some 10 lines in all
  const double step = units.ticks.size() > 1 ? units.ticks[1].at : out.most / unit;
  for (int i = 0; i * step * unit <= out.most * 1.001; ++i)
    out.ticks.push_back({i * step * unit, fmt::format("{:.6g} {}", i * step, name)});
  return out;
}

struct Point {
  double time, value;
};

class Drawing {
 public:
  explicit Drawing(double seconds) : times_(Times(seconds)) {}

  /// Begins a panel under the one before. What is drawn next is in it.
  void Begin(const std::string& title, Scale scale) {
    top_ = panels_ == 0 ? kTop : top_ + kPanel + kGap;
    ++panels_;
    scale_ = std::move(scale);
    legend_ = kLeft + kWidth - 6;
    for (const Tick& t : scale_.ticks) {
      body_ += fmt::format(
          "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='{}'/>"
          "<text x='{}' y='{:.1f}' text-anchor='end' fill='{}'>{}</text>\n",
          kLeft, kLeft + kWidth, Y(t.at), Y(t.at), kGrid, kLeft - 8, Y(t.at) + 4, kDim, t.label);
    }
    for (const Tick& t : times_.ticks) {
      body_ += fmt::format("<line x1='{:.1f}' x2='{:.1f}' y1='{}' y2='{}' stroke='{}'/>\n", X(t.at),
                           X(t.at), top_, top_ + kPanel, kGrid);
    }
    body_ +=
        fmt::format("<text x='{}' y='{}' fill='{}' font-size='13' font-weight='600'>{}</text>\n",
                    kLeft, top_ - 10, kInk, title);
  }

  void Line(std::span<const Point> points, const char* color, double width) {
    if (points.empty()) return;
    body_ += fmt::format(
        "<polyline points='{}' fill='none' stroke='{}' stroke-width='{}' "
        "stroke-linejoin='round' stroke-linecap='round'/>\n",
        Path(points), color, width);
  }

  /// Filled from `low` to `high`, which have the same times.
  void Area(std::span<const Point> low, std::span<const Point> high, const char* color,
            double opacity) {
    if (low.empty()) return;
    const std::vector<Point> back(std::reverse_iterator(high.end()),
                                  std::reverse_iterator(high.begin()));
    body_ += fmt::format("<polygon points='{}{}' fill='{}' fill-opacity='{}'/>\n", Path(low),
                         Path(back), color, opacity);
  }

  /// A dashed line at a value, with its name.
  void Level(double value, const std::string& name) {
    body_ += fmt::format(
        "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='{}' stroke-dasharray='4 3'/>"
        "<text x='{}' y='{:.1f}' fill='{}'>{}</text>\n",
        kLeft, kLeft + kWidth, Y(value), Y(value), kInk, kLeft + 6, Y(value) - 4, kInk, name);
  }

  /// Adds to the legend, from the right: the last one comes first.
  void Legend(const std::string& name, const char* color) {
    legend_ -= 6.3 * static_cast<double>(name.size()) + 30;
    body_ += fmt::format(
        "<rect x='{:.1f}' y='{}' width='12' height='12' rx='2' fill='{}'/>"
        "<text x='{:.1f}' y='{}' fill='{}'>{}</text>\n",
        legend_ + 12, top_ - 20, color, legend_ + 29, top_ - 10, kInk, name);
  }

  std::string Svg() const {
    const double height = top_ + kPanel + 34, width = kLeft + kWidth + kRight;
    std::string out = fmt::format(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {}' width='{}' height='{}' "
        "font-family='system-ui, sans-serif' font-size='12' role='img'>\n"
        "<title>Queue, running sequences, KV blocks by owner, hit rate and latency over "
        "time</title>\n"
        "<rect width='100%' height='100%' fill='#fff'/>\n",
        width, height, width, height);
    out += body_;
    for (const Tick& t : times_.ticks) {
      out += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle' fill='{}'>{}</text>\n",
                         X(t.at), top_ + kPanel + 19, kDim, t.label);
    }
    return out + "</svg>\n";
  }

 private:
  double X(double time) const { return kLeft + time / times_.most * kWidth; }
  double Y(double value) const { return top_ + kPanel * (1 - scale_.Place(value)); }
  std::string Path(std::span<const Point> points) const {
    std::string out;
    for (const Point& p : points) out += fmt::format("{:.1f},{:.1f} ", X(p.time), Y(p.value));
    return out;
  }

  Scale times_, scale_;
  std::string body_;
  double top_ = 0, legend_ = 0;
  int panels_ = 0;
};

using SampleValue = std::function<double(const SimulationSample&)>;

std::vector<Point> Points(const SimulationResult& r, const SampleValue& value) {
  std::vector<Point> out;
  for (const SimulationSample& s : r.samples) out.push_back({s.time_s, value(s)});
  return out;
}

double Most(const SimulationResult& r, const SampleValue& value) {
  double most = 0;
  for (const SimulationSample& s : r.samples) most = std::max(most, value(s));
  return most;
}

void DrawQueue(const SimulationResult& r, Drawing* out) {
  const SampleValue running = [](const auto& s) { return static_cast<double>(s.running); };
  const SampleValue waiting = [](const auto& s) { return static_cast<double>(s.waiting); };
  out->Begin("Sequences", Linear(std::max({1.0, Most(r, running), Most(r, waiting)}), 1, ""));
  out->Line(Points(r, waiting), kTenantColors[1], 1.6);
  out->Line(Points(r, running), kTenantColors[0], 1.6);
  out->Legend("waiting", kTenantColors[1]);
  out->Legend("running", kTenantColors[0]);
}

struct KvOwner {
  std::string name;
  const char* color;
  SampleValue blocks;
};

/// The tenants that held most, all others together, and the cache.
std::vector<KvOwner> OwnersOf(const SimulationResult& r) {
  std::map<uint64_t, int64_t> sums;
  for (const SimulationSample& s : r.samples) {
    for (const auto& [tenant, blocks] : s.tenant_blocks) sums[tenant] += blocks;
  }
  std::vector<std::pair<int64_t, uint64_t>> order;
  for (const auto& [tenant, sum] : sums) order.emplace_back(-sum, tenant);
  std::sort(order.begin(), order.end());
  std::vector<KvOwner> out;
  const auto named = [&](size_t i, const std::string& name) {
    out.push_back({name, kTenantColors[i], [tenant = order[i].second](const SimulationSample& s) {
                     const auto it = s.tenant_blocks.find(tenant);
                     return it == s.tenant_blocks.end() ? 0 : static_cast<double>(it->second);
                   }});
  };
  if (order.size() == 1) {
    named(0, "running sequences");
  } else {
    for (size_t i = 0; i < std::min(order.size(), kNamedTenants); ++i)
      named(i, fmt::format("tenant {}", order[i].second));
  }
  if (order.size() > kNamedTenants) {
    out.push_back({fmt::format("{} others", order.size() - kNamedTenants), kOthersColor,
                   [order](const SimulationSample& s) {
                     int64_t sum = 0;
                     for (const auto& [tenant, blocks] : s.tenant_blocks) sum += blocks;
                     for (size_t i = 0; i < kNamedTenants; ++i) {
                       const auto it = s.tenant_blocks.find(order[i].second);
                       if (it != s.tenant_blocks.end()) sum -= it->second;
                     }
                     return static_cast<double>(sum);
                   }});
  }
  out.push_back({"cached", kCachedColor,
                 [](const auto& s) { return static_cast<double>(s.cached_blocks()); }});
  return out;
}

void DrawKv(const SimulationResult& r, Drawing* out) {
  const double used =
      std::max(1.0, Most(r, [](const auto& s) { return static_cast<double>(s.used_blocks); }));
  const auto pool = static_cast<double>(r.pool_blocks);
  const bool pool_is_near = pool < 1.3 * used;
  out->Begin("KV blocks by owner", Linear(pool_is_near ? pool * 1.1 : used, 1, ""));
  const std::vector<KvOwner> owners = OwnersOf(r);
  std::vector<Point> low = Points(r, [](const auto&) { return 0.0; });
  for (const KvOwner& o : owners) {
    std::vector<Point> high = Points(r, o.blocks);
    for (size_t i = 0; i < high.size(); ++i) high[i].value += low[i].value;
    out->Area(low, high, o.color, 0.9);
    low = std::move(high);
  }
  if (pool_is_near) out->Level(pool, fmt::format("the pool, {} blocks", r.pool_blocks));
  for (size_t i = owners.size(); i-- > 0;) out->Legend(owners[i].name, owners[i].color);
}

void DrawHits(const SimulationResult& r, Drawing* out) {
  const SampleValue rate = [](const auto& s) { return s.hit_rate; };
  out->Begin("Prompt tokens from the cache, of all so far",
             Linear(std::max(0.01, Most(r, rate)), 100, "%"));
  const std::vector<Point> points = Points(r, rate);
  out->Area(Points(r, [](const auto&) { return 0.0; }), points, kTenantColors[2], 0.12);
  out->Line(points, kTenantColors[2], 1.6);
}

/// p50 and p99 of one latency. Buckets in which nothing came are left out: the line goes on.
void DrawLatency(const std::vector<LatencyBucket>& buckets, size_t LatencyBucket::*count,
                 double LatencyBucket::*p50, double LatencyBucket::*p99, const char* color,
                 Drawing* out) {
  std::vector<Point> middle, high;
  for (const LatencyBucket& b : buckets) {
    if (b.*count == 0) continue;
    const double at = (b.begin_s + b.end_s) / 2;
    middle.push_back({at, b.*p50});
    high.push_back({at, b.*p99});
  }
  out->Area(middle, high, color, 0.14);
  out->Line(high, color, 0.8);
  out->Line(middle, color, 2.2);
}

void DrawLatencies(const SimulationResult& r, Drawing* out) {
  const std::vector<LatencyBucket> buckets = LatencyOverTime(r, kMostBuckets);
  std::vector<double> shown;
  for (const LatencyBucket& b : buckets) {
    for (const double seconds : {b.ttft_p50, b.ttft_p99, b.itl_p50, b.itl_p99}) {
      if (seconds > 0) shown.push_back(seconds);
    }
  }
  if (shown.empty()) shown = {0.01, 1};
  const auto [least, most] = std::minmax_element(shown.begin(), shown.end());
  out->Begin("Latency: p50 (thick), up to p99 (thin)", Logarithmic(*least, *most));
  const char* ttft = kTenantColors[1];
  const char* itl = kTenantColors[0];
  DrawLatency(buckets, &LatencyBucket::first_tokens, &LatencyBucket::ttft_p50,
              &LatencyBucket::ttft_p99, ttft, out);
  DrawLatency(buckets, &LatencyBucket::later_tokens, &LatencyBucket::itl_p50,
              &LatencyBucket::itl_p99, itl, out);
  out->Legend("between tokens (ITL)", itl);
  out->Legend("to the first token (TTFT)", ttft);
}

}  // namespace

std::string SimulationPlot(const SimulationResult& r) {
  Drawing drawing(r.seconds);
  DrawQueue(r, &drawing);
  DrawKv(r, &drawing);
  DrawHits(r, &drawing);
  DrawLatencies(r, &drawing);
  return drawing.Svg();
}

}  // namespace kvasir
