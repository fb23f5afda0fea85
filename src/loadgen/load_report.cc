#include "loadgen/load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

namespace kvasir {
namespace {

using Json = nlohmann::ordered_json;

/// Seconds for each output token after the first.
double TpotOf(const LoadRecord& r) {
  return r.output_tokens > 1
             ? (r.end_s - r.start_s - r.ttft_s) / static_cast<double>(r.output_tokens - 1)
             : 0;
}

bool IsGood(const LoadRecord& r, const GoodputLimits& l) {
  const auto within = [](double value, double limit) { return limit <= 0 || value <= limit; };
  const double worst = r.itl_s.empty() ? 0 : *std::max_element(r.itl_s.begin(), r.itl_s.end());
  return within(r.ttft_s, l.ttft_s) && within(worst, l.itl_s) && within(TpotOf(r), l.tpot_s) &&
         within(r.end_s - r.start_s, l.e2el_s);
}

/// The busiest seconds of a run.
void CountSeconds(const std::vector<LoadRecord>& records, LoadSummary* out) {
  double begin = std::numeric_limits<double>::infinity();
  for (const LoadRecord& r : records) {
    if (r.ok) begin = std::min(begin, r.start_s);
  }
  std::map<int64_t, int64_t> tokens, open;
  const auto second = [begin](double time) { return static_cast<int64_t>(time - begin); };
  for (const LoadRecord& r : records) {
    if (!r.ok) continue;
    double time = r.start_s + r.ttft_s;
    ++tokens[second(time)];
    for (const double gap : r.itl_s) ++tokens[second(time += gap)];
    for (int64_t s = second(r.start_s); s <= second(r.end_s); ++s) ++open[s];
  }
  for (const auto& [s, count] : tokens)
    out->most_tokens_in_a_second = std::max(out->most_tokens_in_a_second, count);
  for (const auto& [s, count] : open)
    out->most_open_in_a_second = std::max(out->most_open_in_a_second, count);
}

double Rate(double count, double seconds) { return seconds > 0 ? count / seconds : 0; }

}  // namespace

std::string Reason(const std::string& error, const std::string& message) {
  return message.empty() ? error : error + ": " + message;
}

LoadStatistics StatisticsOf(std::vector<double> values) {
  LoadStatistics s;
  if (values.empty()) return s;
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  const auto at = [&](double part) {
    const double rank = part * (n - 1);
    const auto below = static_cast<size_t>(rank);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (values[above] - values[below]) * (rank - std::floor(rank));
  };
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  s.mean = sum / n;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  s.std = std::sqrt(squares / n);
  s.median = at(0.5);
  s.p90 = at(0.9);
  s.p95 = at(0.95);
  s.p99 = at(0.99);
  s.most = values.back();
  return s;
}

LoadSummary Summarize(const std::vector<LoadRecord>& records, double duration_s,
                      const GoodputLimits& limits) {
  LoadSummary out;
  out.duration_s = duration_s;
  std::vector<double> ttft, tpot, itl, e2el;
  std::map<std::string, LoadSummary::Failure> errors;
  for (const LoadRecord& r : records) {
    if (!r.ok) {
      ++out.failed;
      LoadSummary::Failure& failure = errors[r.error];
      if (failure.count++ == 0) failure.message = r.message;
      continue;
    }
    ++out.completed;
    if (IsGood(r, limits)) ++out.good;
    out.prompt_tokens += r.prompt_tokens;
    out.cached_tokens += r.cached_tokens;
    out.output_tokens += r.output_tokens;
    ttft.push_back(r.ttft_s);
    if (r.output_tokens > 1) tpot.push_back(TpotOf(r));
    itl.insert(itl.end(), r.itl_s.begin(), r.itl_s.end());
    e2el.push_back(r.end_s - r.start_s);
  }
  out.ttft = StatisticsOf(std::move(ttft));
  out.tpot = StatisticsOf(std::move(tpot));
  out.itl = StatisticsOf(std::move(itl));
  out.e2el = StatisticsOf(std::move(e2el));
  CountSeconds(records, &out);
  for (auto& [error, failure] : errors) {
    failure.error = error;
    out.errors.push_back(std::move(failure));
  }
  return out;
}

Json ToJson(const LoadSummary& s, const std::string& model, const std::string& date, bool goodput) {
  Json out = {
      {"date", date},
      {"endpoint_type", s.chat ? "openai-chat" : "openai"},
      {"backend", s.chat ? "openai-chat" : "openai"},
      {"label", nullptr},
      {"model_id", model},
      // The server's own: lengths come from its usage.
      {"tokenizer_id", model},
      {"num_prompts", s.completed + s.failed},
      {"request_rate", s.rate > 0 ? Json(s.rate) : Json("inf")},
      {"burstiness", s.burstiness},
      {"max_concurrency", s.concurrency > 0 ? Json(s.concurrency) : Json()},
      {"duration", s.duration_s},
      {"completed", s.completed},
      {"failed", s.failed},
      {"total_input_tokens", s.prompt_tokens},
      {"total_output_tokens", s.output_tokens},
      {"cached_tokens", s.cached_tokens},
      {"request_throughput", Rate(static_cast<double>(s.completed), s.duration_s)},
      {"request_goodput", goodput ? Json(Rate(static_cast<double>(s.good), s.duration_s)) : Json()},
      {"output_throughput", Rate(static_cast<double>(s.output_tokens), s.duration_s)},
      {"total_token_throughput",
       Rate(static_cast<double>(s.prompt_tokens + s.output_tokens), s.duration_s)},
      {"max_output_tokens_per_s", static_cast<double>(s.most_tokens_in_a_second)},
      {"max_concurrent_requests", s.most_open_in_a_second}};
  const auto put = [&](const std::string& name, const LoadStatistics& v) {
    out["mean_" + name + "_ms"] = v.mean * 1e3;
    out["median_" + name + "_ms"] = v.median * 1e3;
    out["std_" + name + "_ms"] = v.std * 1e3;
    out["p90_" + name + "_ms"] = v.p90 * 1e3;
    out["p95_" + name + "_ms"] = v.p95 * 1e3;
    out["p99_" + name + "_ms"] = v.p99 * 1e3;
    out["max_" + name + "_ms"] = v.most * 1e3;
  };
  put("ttft", s.ttft);
  put("tpot", s.tpot);
  put("itl", s.itl);
  put("e2el", s.e2el);
  Json errors = Json::object(), messages = Json::object();
  for (const LoadSummary::Failure& f : s.errors) {
    errors[f.error] = f.count;
    messages[f.error] = f.message;
  }
  out["errors"] = std::move(errors);
  out["error_messages"] = std::move(messages);
  return out;
}

std::string ToText(const LoadSummary& s, bool goodput) {
  std::string out = fmt::format(
      "{} of {} requests answered in {:.1f} s{}\n"
      "  requests/s {:.2f}{}   output tokens/s {:.1f}   all tokens/s {:.1f}\n"
      "  prompt tokens {}, of them cached {} ({:.1f}%)   output tokens {}\n",
      s.completed, s.completed + s.failed, s.duration_s,
      s.rate > 0 ? fmt::format(", {} a second arriving", s.rate) : "",
      Rate(static_cast<double>(s.completed), s.duration_s),
      goodput ? fmt::format(" (good: {:.2f})", Rate(static_cast<double>(s.good), s.duration_s))
              : "",
      Rate(static_cast<double>(s.output_tokens), s.duration_s),
      Rate(static_cast<double>(s.prompt_tokens + s.output_tokens), s.duration_s), s.prompt_tokens,
      s.cached_tokens,
      Rate(static_cast<double>(s.cached_tokens) * 100, static_cast<double>(s.prompt_tokens)),
      s.output_tokens);
  out += fmt::format("  {:<6} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "ms", "mean", "median", "p90",
                     "p99", "most");
  const std::pair<const char*, const LoadStatistics*> rows[] = {
      {"TTFT", &s.ttft}, {"TPOT", &s.tpot}, {"ITL", &s.itl}, {"E2EL", &s.e2el}};
  for (const auto& [name, v] : rows) {
    out += fmt::format("  {:<6} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.1f}\n", name,
                       v->mean * 1e3, v->median * 1e3, v->p90 * 1e3, v->p99 * 1e3, v->most * 1e3);
  }
  for (const LoadSummary::Failure& f : s.errors)
    out += fmt::format("  failed {}: {}\n", f.count, Reason(f.error, f.message));
  return out;
}

std::string ToSvg(const std::vector<LoadSummary>& rows, bool goodput) {
  struct Line {
    std::string name, color;
    std::function<double(const LoadSummary&)> value;
  };
  const auto per_second = [](int64_t LoadSummary::*field) {
    return
        [field](const LoadSummary& s) { return Rate(static_cast<double>(s.*field), s.duration_s); };
  };
  std::vector<std::vector<Line>> panels = {
      {{"requests/s", "#1b6ca8", per_second(&LoadSummary::completed)}},
      {{"output tokens/s", "#27864a", per_second(&LoadSummary::output_tokens)}},
      {{"TTFT p99, ms", "#c0392b", [](const auto& s) { return s.ttft.p99 * 1e3; }},
       {"median", "#e0a08a", [](const auto& s) { return s.ttft.median * 1e3; }}},
      {{"ITL p99, ms", "#c0392b", [](const auto& s) { return s.itl.p99 * 1e3; }},
       {"median", "#e0a08a", [](const auto& s) { return s.itl.median * 1e3; }}}};
  if (goodput) panels[0].push_back({"good ones", "#27864a", per_second(&LoadSummary::good)});
  constexpr double kWidth = 700, kPanel = 110, kLeft = 70, kGap = 40;
  const double height = static_cast<double>(panels.size()) * (kPanel + kGap) + 40;
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{}' font-family='sans-serif' "
      "font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n",
      kLeft + kWidth + 20, height);
  double top = kGap - 12, last_rate = 1e-9;
  for (const LoadSummary& s : rows) last_rate = std::max(last_rate, s.rate);
  for (const std::vector<Line>& lines : panels) {
    double most = 1e-9, label = kLeft + 8;
    for (const LoadSummary& s : rows) {
      for (const Line& l : lines) most = std::max(most, l.value(s));
    }
    svg += fmt::format(
        "<rect x='{}' y='{}' width='{}' height='{}' fill='none' stroke='#999'/>\n<text x='{}' "
        "y='{}' text-anchor='end'>{:.4g}</text>\n",
        kLeft, top, kWidth, kPanel, kLeft - 6, top + 10, most);
    for (const Line& l : lines) {
      std::string points;
      for (const LoadSummary& s : rows) {
        points += fmt::format("{:.1f},{:.1f} ", kLeft + s.rate / last_rate * kWidth,
                              top + kPanel * (1 - l.value(s) / most));
      }
      svg += fmt::format(
          "<polyline points='{}' fill='none' stroke='{}' stroke-width='1.5'/>\n<text x='{}' y='{}' "
          "fill='{}'>{}</text>\n",
          points, l.color, label, top - 5, l.color, l.name);
      label += 150;
    }
    top += kPanel + kGap;
  }
  svg += fmt::format("<text x='{}' y='{}'>0 to {:.4g} requests a second arriving</text>\n</svg>\n",
                     kLeft, top - kGap + 20, last_rate);
  return svg;
}

}  // namespace kvasir
