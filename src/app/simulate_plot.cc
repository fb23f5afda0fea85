#include "app/simulate_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>

namespace kvasir {
namespace {

constexpr double kWidth = 900, kPanel = 130, kLeft = 70, kGap = 45;

struct Line {
  std::string name, color;
  std::function<double(const SimulationSample&)> value;
};

/// One panel: lines over time on one scale from 0.
std::string Panel(const SimulationResult& r, double top, const std::vector<Line>& lines) {
  double most = 1e-9;
  for (const SimulationSample& s : r.samples) {
    for (const Line& l : lines) most = std::max(most, l.value(s));
  }
  const double end = std::max(1e-9, r.seconds);
  std::string out =
      fmt::format("<rect x='{}' y='{}' width='{}' height='{}' fill='none' stroke='#999'/>\n", kLeft,
                  top, kWidth, kPanel);
  out += fmt::format(
      "<text x='{}' y='{}' text-anchor='end'>{:.6g}</text><text x='{}' y='{}' "
      "text-anchor='end'>0</text>\n",
      kLeft - 6, top + 10, most, kLeft - 6, top + kPanel);
  double label = kLeft + 8;
  for (const Line& l : lines) {
    std::string points;
    for (const SimulationSample& s : r.samples) {
      points += fmt::format("{:.1f},{:.1f} ", kLeft + s.time_s / end * kWidth,
                            top + kPanel * (1 - l.value(s) / most));
    }
    out += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.2'/>\n",
                       points, l.color);
    out +=
        fmt::format("<text x='{}' y='{}' fill='{}'>{}</text>\n", label, top - 6, l.color, l.name);
    label += 130;
  }
  return out;
}

}  // namespace

Status WriteSimulationPlot(const std::string& path, const SimulationResult& r) {
  const double height = 3 * (kPanel + kGap) + 30;
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{}' font-family='sans-serif' "
      "font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n",
      kLeft + kWidth + 20, height);
  double top = kGap - 15;
  svg +=
      Panel(r, top,
            {{"running", "#1b6ca8", [](const auto& s) { return static_cast<double>(s.running); }},
             {"waiting", "#c0392b", [](const auto& s) { return static_cast<double>(s.waiting); }}});
  top += kPanel + kGap;
  svg += Panel(r, top,
               {{"blocks in use", "#1b6ca8",
                 [](const auto& s) { return static_cast<double>(s.used_blocks - s.idle_blocks); }},
                {"blocks cached", "#27864a",
                 [](const auto& s) { return static_cast<double>(s.idle_blocks); }}});
  top += kPanel + kGap;
  svg += Panel(r, top, {{"hit rate", "#27864a", [](const auto& s) { return s.hit_rate; }}});
  svg += fmt::format("<text x='{}' y='{}'>0 to {:.0f} s</text>\n</svg>\n", kLeft, top + kPanel + 18,
                     r.seconds);
  std::ofstream out(path);
  out << svg;
  out.close();
  if (!out) return MakeError(ErrorCode::kIo, "cannot write {}", path);
  return {};
}

}  // namespace kvasir
