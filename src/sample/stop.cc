#include "sample/stop.h"

#include <deque>

#include "base/check.h"

namespace kvasir {

StopMatcher::StopMatcher(const std::vector<std::string>& strings) : strings_(strings), nodes_(1) {
  for (size_t i = 0; i < strings_.size(); ++i) {
    int at = 0;
    for (const char byte : strings_[i]) {
      const auto [it, added] = nodes_[at].next.try_emplace(byte, static_cast<int>(nodes_.size()));
      const int child = it->second;
      if (added) nodes_.push_back({.depth = nodes_[at].depth + 1});
      at = child;
    }
    if (at != 0 && nodes_[at].matched < 0) nodes_[at].matched = static_cast<int>(i);
  }
  // Breadth first, so that a node's fail link is complete before its children need it.
  std::deque<int> queue;
  for (const auto& [byte, child] : nodes_[0].next) queue.push_back(child);
  while (!queue.empty()) {
    const int at = queue.front();
    queue.pop_front();
    for (const auto& [byte, child] : nodes_[at].next) {
      nodes_[child].fail = Step(nodes_[at].fail, byte);
      queue.push_back(child);
    }
    if (nodes_[at].matched < 0) nodes_[at].matched = nodes_[nodes_[at].fail].matched;
  }
}

int StopMatcher::Step(int state, char byte) const {
  for (;;) {
    const auto it = nodes_[state].next.find(byte);
    if (it != nodes_[state].next.end()) return it->second;
    if (state == 0) return 0;
    state = nodes_[state].fail;
  }
}

StopMatcher::Output StopMatcher::Push(std::string_view text, bool may_stop) {
  Output out;
  for (const char byte : text) {
    held_.push_back(byte);
    state_ = Step(state_, byte);
    const int matched = nodes_[state_].matched;
    if (matched >= 0 && may_stop) {
      out.stopped = true;
      out.matched = matched;
      held_.resize(held_.size() - strings_[matched].size());
      out.text = std::move(held_);
      held_.clear();
      return out;
    }
  }
  const size_t certain = held_.size() - nodes_[state_].depth;
  out.text = held_.substr(0, certain);
  held_.erase(0, certain);
  return out;
}

std::string StopMatcher::Finish() {
  state_ = 0;
  return std::move(held_);
}

}  // namespace kvasir
